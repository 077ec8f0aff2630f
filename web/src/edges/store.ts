// The browser's storage, which may be refused (in a frame of another site): then nothing is remembered.

export function recall(key: string): string | null {
  try {
    return localStorage.getItem(`console-proxy:${key}`);
  } catch {
    return null;
  }
}

/** Whether it is remembered. */
export function remember(key: string, value: string): boolean {
  try {
    localStorage.setItem(`console-proxy:${key}`, value);
    return true;
  } catch {
    return false;
  }
}

export function forget(key: string): void {
  try {
    localStorage.removeItem(`console-proxy:${key}`);
  } catch {
    // Nothing is remembered there.
  }
}
