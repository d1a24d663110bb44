/** Makes and changes elements without a framework. */

type Child = Node | string | undefined;

/**
 * Makes an element. An attribute that is `undefined` or `false` is left out, and `true` becomes an empty attribute. A
 * function named `on…` is added as a listener of that event.
 */
export function el<Name extends keyof HTMLElementTagNameMap>(
  name: Name,
  attributes: Readonly<Record<string, unknown>> = {},
  ...children: readonly Child[]
): HTMLElementTagNameMap[Name] {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === 'function') element.addEventListener(key.replace(/^on/, ''), value as EventListener);
    else if (value !== undefined && value !== false) element.setAttribute(key, value === true ? '' : String(value));
  }
  element.append(...children.filter((child) => child !== undefined));
  return element;
}

/** Changes the text only if it differs. An unneeded change would disturb screen readers and selections. */
export function setText(element: Element, text: string): void {
  if (element.textContent !== text) element.textContent = text;
}

/** Saves a blob as a file of the user. */
export function saveBlob(blob: Blob, name: string): void {
  const url = URL.createObjectURL(blob);
  el('a', { href: url, download: name }).click();
  // The browser reads the blob after the click. A URL that is revoked too early gives an empty file.
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}
