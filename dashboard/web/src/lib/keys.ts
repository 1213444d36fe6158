/** Keys of a whole page, which are not those of what has the focus. */

const TAKEN = 'input, textarea, select, button, a, summary, [contenteditable], [role=slider], [role=tab], [role=dialog]'
const WRITTEN_IN = 'input, textarea, select, [contenteditable]'

/** Whether a key pressed now is meant for the page, and not for a field, a button or another program. */
export function isForThePage(event: KeyboardEvent): boolean {
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return false
  return !(event.target instanceof Element) || event.target.closest(TAKEN) === null
}

/** Whether somebody writes, or chooses in a field: also while an input method puts characters together. */
export function isWriting(event: KeyboardEvent): boolean {
  return event.isComposing || (event.target instanceof Element && event.target.closest(WRITTEN_IN) !== null)
}
