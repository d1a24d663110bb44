/** Folders of OPFS for tests, each empty and used once. */

export async function freshDirectory(): Promise<FileSystemDirectoryHandle> {
  const root = await navigator.storage.getDirectory();
  return root.getDirectoryHandle(`test-${crypto.randomUUID()}`, { create: true });
}
