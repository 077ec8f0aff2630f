// Buttons of the bar, made from what a viewer offers. A button that is still offered stays the same element, so that
// the focus and an open panel survive a change.

import type { Tool } from '../viewers/viewer';
import { h, icon } from './dom';
import { opensMenu, opensPanel } from './popover';

interface Made {
  button: HTMLButtonElement;
  extra: HTMLElement | null;
  tool: Tool;
}

export class Tools {
  private made = new Map<string, Made>();

  constructor(
    private readonly row: HTMLElement,
    private readonly used: () => void,
  ) {}

  show(tools: Tool[]): void {
    const wanted = new Map(tools.map((tool) => [tool.id, tool]));
    for (const [id, { button, extra }] of this.made) {
      if (wanted.has(id)) continue;
      button.remove();
      extra?.remove();
      this.made.delete(id);
    }
    for (const tool of tools) this.one(tool);
    const order = tools.map((tool) => this.made.get(tool.id)?.button);
    const there = [...this.row.querySelectorAll(':scope > button')];
    if (order.some((button, n) => button !== there[n])) {
      for (const button of order) if (button) this.row.append(button);
    }
  }

  private one(tool: Tool): void {
    const made = this.made.get(tool.id) ?? this.make(tool);
    made.tool = tool;
    const { button } = made;
    button.title = tool.label;
    button.disabled = tool.disabled ?? false;
    if (tool.pressed !== undefined) button.setAttribute('aria-pressed', String(tool.pressed));
    const label = button.querySelector('.label');
    if (label && label.textContent !== (tool.text ?? tool.label)) label.textContent = tool.text ?? tool.label;
  }

  private items(tool: Tool): { label: string; run(): void }[] {
    return (tool.menu ?? []).map(({ label, run }) => ({
      label,
      run: () => {
        run();
        this.used();
      },
    }));
  }

  private make(tool: Tool): Made {
    const label = h(
      'span',
      { class: tool.icon && !tool.text ? 'label only-wide-hidden' : 'label' },
      tool.text ?? tool.label,
    );
    const button = h(
      'button',
      { type: 'button', class: 'tool', 'data-testid': `tool-${tool.id}` },
      tool.icon && icon(tool.icon),
      label,
    );
    if (tool.text && tool.text !== tool.label) button.setAttribute('aria-label', tool.label);
    const made: Made = { button, extra: null, tool };
    // A click leaves the keyboard where it is: in the console.
    button.addEventListener('mousedown', (event) => event.preventDefault());
    if (tool.menu) made.extra = opensMenu(button, tool.label, () => this.items(made.tool));
    else if (tool.panel) made.extra = opensPanel(button, tool.label, () => made.tool.panel?.() ?? h('div'));
    else {
      button.addEventListener('click', () => {
        made.tool.run?.();
        this.used();
      });
    }
    if (made.extra) document.body.append(made.extra);
    this.made.set(tool.id, made);
    return made;
  }
}
