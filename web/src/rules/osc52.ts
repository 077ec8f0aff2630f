// OSC 52, by which a program in the guest sets a terminal's clipboard or asks for it.

/** Whether it asks: `SELECTION;?`, whatever else stands behind it, as the add-on reads it. */
export function isClipboardQuestion(data: string): boolean {
  return data.split(';')[1] === '?';
}
