/** Keys of a whole page, which are not those of what has the focus. */

const TAKEN = 'input, textarea, select, button, a, summary, [contenteditable], [role=slider], [role=tab], [role=dialog]'

/** Whether a key pressed now is meant for the page, and not for a field, a button or another program. */
export function isForThePage(event: KeyboardEvent): boolean {
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return false
  return !(event.target instanceof Element) || event.target.closest(TAKEN) === null
}
