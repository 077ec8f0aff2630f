// The browser's storage, which may be refused (in a frame of another site): then nothing is remembered.

export function recall(key: string): string | null {
  try {
    return localStorage.getItem(`console-proxy:${key}`);
  } catch {
    return null;
  }
}

export function remember(key: string, value: string): void {
  try {
    localStorage.setItem(`console-proxy:${key}`, value);
  } catch {
    // Not remembered, then.
  }
}
