/** What is written and not saved: whoever leaves it, by a link, a key or with the window, is asked first. */

import { onBeforeUnmount } from 'vue'
import { onBeforeRouteLeave, onBeforeRouteUpdate } from 'vue-router'

/** `question`: in the language of the moment; a window that is closed asks in the browser's own words. */
export function guardUnsaved(changed: () => boolean, question: () => string): void {
  const leave = () => !changed() || window.confirm(question())
  onBeforeRouteLeave(leave)
  onBeforeRouteUpdate(leave)
  const unload = (event: BeforeUnloadEvent) => {
    if (changed()) event.preventDefault()
  }
  window.addEventListener('beforeunload', unload)
  onBeforeUnmount(() => window.removeEventListener('beforeunload', unload))
}
