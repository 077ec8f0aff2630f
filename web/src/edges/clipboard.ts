// The person's clipboard, as far as the browser lets a page have it.

export async function copyText(text: string): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false;
  }
}

/** What is in the clipboard; null: the browser does not tell. May make the browser ask the person. */
export async function readText(): Promise<string | null> {
  try {
    return await navigator.clipboard.readText();
  } catch {
    return null;
  }
}

/** The same, but only where it was allowed before: a question out of the blue would be rude. */
export async function readTextQuietly(): Promise<string | null> {
  try {
    const { state } = await navigator.permissions.query({ name: 'clipboard-read' as PermissionName });
    return state === 'granted' ? await readText() : null;
  } catch {
    return null;
  }
}
