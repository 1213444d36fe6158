/** Small choices kept in the browser. A browser that forbids storage simply forgets. */

export function recall(key: string): string | null {
  try {
    return localStorage.getItem(`duting.${key}`)
  } catch {
    return null
  }
}

export function remember(key: string, value: string): void {
  try {
    localStorage.setItem(`duting.${key}`, value)
  } catch {
    // Private window or full storage: the choice lasts as long as the page.
  }
}
