// Making elements. Text goes in as text nodes and attributes as attributes: nothing here parses markup.

type Child = Node | string | null | undefined | false;
type Attributes = Record<string, string | boolean | number | ((event: never) => void) | null | undefined>;

/** An element; attributes that are functions are listeners (`click`, ...), `null` and `false` leave one out. */
export function h<Name extends keyof HTMLElementTagNameMap>(
  name: Name,
  attributes: Attributes = {},
  ...children: Child[]
): HTMLElementTagNameMap[Name] {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === 'function') element.addEventListener(key, value as EventListener);
    else if (value === true) element.setAttribute(key, '');
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(key, String(value));
  }
  element.append(...children.filter((child): child is Node | string => !!child));
  return element;
}

const SVG = 'http://www.w3.org/2000/svg';

/** Line drawings in a square of 16. */
const icons: Record<string, string> = {
  fullScreen: 'M2 6V2h4M10 2h4v4M14 10v4h-4M6 14H2v-4',
  theme: 'M8 2a6 6 0 1 0 0 12zM8 2a6 6 0 0 1 0 12',
  help: 'M8 14.2A6.2 6.2 0 1 0 8 1.8a6.2 6.2 0 0 0 0 12.4zM6.2 6.2A1.8 1.8 0 1 1 8 8.4v1M8 11.3v.4',
  clipboard: 'M5.5 3H3.5v11h9V3h-2M5.5 2h5v2.5h-5z',
  keyboard: 'M1.5 4h13v8h-13zM4 6.5h.5M6.7 6.5h.5M9.4 6.5h.5M12 6.5h.5M4.5 9.5h7',
  extraKeys: 'M2 3h5v4H2zM9 3h5v4H9zM2 9h5v4H2zM9 9h5v4H9z',
  scale: 'M2 2h12v12H2zM5 8V5h3M11 8v3H8',
  resize: 'M2 3h12v8H2zM6 14h4M8 11v3M5 7h6M5 7l1.5-1.5M5 7l1.5 1.5M11 7L9.500 5.500M11 7L9.500 8.500',
  type: 'M2 4V2.500h12V4M8 2.500v9M6 11.500h4M2 14h12',
  search: 'M7 12A5 5 0 1 0 7 2a5 5 0 0 0 0 10zM10.700 10.700L14 14',
  copy: 'M5.500 5.500V2.500h8v8h-3M2.500 5.500h8v8h-8z',
  paste: 'M5.500 3H3.500v11h9V3h-2M5.500 2h5v2.500h-5zM8 6.500v5M6 9.500l2 2 2-2',
  smaller: 'M2 12.500L5.500 4h1L10 12.500M3.200 9.500h5.600M11 6h4',
  larger: 'M2 12.500L5.500 4h1L10 12.500M3.200 9.500h5.600M11 6h4M13 4v4',
  setSize: 'M2 2.500h12v11H2zM4.500 6L6.500 8l-2 2M8 10.500h3.500',
  download: 'M8 2v8M5 7l3 3 3-3M2.500 13.500h11',
  screenReader: 'M2 6h2.500L8 3v10L4.500 10H2zM10.500 5.500a3.500 3.500 0 0 1 0 5M12.500 3.500a6.300 6.300 0 0 1 0 9',
  menu: 'M2 4h12M2 8h12M2 12h12',
  account: 'M8 8.500a3 3 0 1 0 0-6 3 3 0 0 0 0 6zM2.500 14c.5-3 2.700-4 5.500-4s5 1 5.500 4',
  close: 'M4 4l8 8M12 4l-8 8',
};

export function icon(name: string): SVGSVGElement {
  const svg = document.createElementNS(SVG, 'svg');
  svg.setAttribute('viewBox', '0 0 16 16');
  svg.setAttribute('class', 'icon');
  svg.setAttribute('aria-hidden', 'true');
  const path = document.createElementNS(SVG, 'path');
  path.setAttribute('d', icons[name] ?? '');
  svg.append(path);
  return svg;
}
