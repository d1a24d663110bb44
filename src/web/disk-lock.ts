/** Lets one at a time change the volumes of a disk: a PC, or the page that puts files in. It holds across tabs. */

/**
 * Returns a function that ends the hold, or `undefined` if another holds the volumes of this disk. A hold ends with its
 * tab, too. A disk that is not kept belongs to one page.
 */
export function holdVolumes({ id, isKept }: { id: string; isKept: boolean }): Promise<(() => void) | undefined> {
  const name = `copyondemand volumes ${id}${isKept ? '' : ` of ${performance.timeOrigin}`}`;
  return new Promise((resolve, reject) => {
    const hold = (lock: Lock | null): Promise<void> | undefined => {
      if (lock !== null) return new Promise((release) => resolve(release));
      resolve(undefined);
      return undefined;
    };
    navigator.locks.request(name, { ifAvailable: true }, hold).catch(reject);
  });
}
