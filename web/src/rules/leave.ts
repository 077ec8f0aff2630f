// Leaving a console by keyboard: a console takes every key, Tab included, so one chord must be the page's. Control, Alt
// and Shift held together and let go, with nothing else pressed meanwhile: no guest uses it, and no key gets stuck.

export class Leave {
  private armed = false;

  /** A key went down or up; true: the person wants out. */
  key(down: boolean, key: string, held: { ctrl: boolean; alt: boolean; shift: boolean }): boolean {
    const modifier = ['Control', 'Alt', 'Shift', 'AltGraph', 'Meta'].includes(key);
    if (down) {
      this.armed = modifier && held.ctrl && held.alt && held.shift;
      return false;
    }
    if (!this.armed || held.ctrl || held.alt || held.shift) return false;
    this.armed = false;
    return modifier;
  }
}
