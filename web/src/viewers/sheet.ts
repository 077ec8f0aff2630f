// Style sheets of xterm.js without style elements: the page's Content-Security-Policy allows none, and constructed
// sheets need no exception. xterm.js puts text into style elements that it makes; it gets elements that look so.

const create = Document.prototype.createElement;

/** What to hand out for `<style>`: its text goes into a constructed sheet, which goes when the element goes. */
function standIn(): HTMLElement {
  const element = create.call(document, 'template');
  const sheet = new CSSStyleSheet();
  document.adoptedStyleSheets.push(sheet);
  Object.defineProperty(element, 'textContent', { set: (css: string) => sheet.replaceSync(css), get: () => '' });
  element.remove = () => {
    document.adoptedStyleSheets = document.adoptedStyleSheets.filter((one) => one !== sheet);
    Element.prototype.remove.call(element);
  };
  return element;
}

/** A document whose style elements are such ones, for the option `documentOverride`. */
export const documentWithoutStyles: Document = new Proxy(document, {
  get(target, name) {
    if (name === 'createElement') {
      return (tag: string, options?: ElementCreationOptions) =>
        tag === 'style' ? standIn() : create.call(target, tag, options);
    }
    const value: unknown = Reflect.get(target, name, target);
    return typeof value === 'function' ? (value as (...all: never[]) => unknown).bind(target) : value;
  },
});

/** Runs something that uses the global document in spite of the option: xterm's scroll bar does. */
export function withoutStyles(run: () => void): void {
  Object.defineProperty(document, 'createElement', {
    configurable: true,
    value: (tag: string, options?: ElementCreationOptions) =>
      tag === 'style' ? standIn() : create.call(document, tag, options),
  });
  try {
    run();
  } finally {
    delete (document as { createElement?: unknown }).createElement;
  }
}
