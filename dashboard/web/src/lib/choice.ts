/** What is chosen on the wall: in the address, so that a view can be passed on and the back button works. */

import { onScopeDispose, shallowRef, watch, type ShallowRef } from 'vue'
import { useRoute, useRouter } from 'vue-router'

import { readChoice, writeChoice, type Choice } from '@/feed/wall'
import { recall, remember } from './memory'

/** The address follows what is typed after a moment, not letter by letter. */
const WRITE_MS = 250
const KEY = 'wall'

export function useChoice(): { choice: Readonly<ShallowRef<Choice>>; choose: (change: Partial<Choice>) => void } {
  const route = useRoute()
  const router = useRouter()
  const choice = shallowRef(begin())
  let timer = 0

  function begin(): Choice {
    if (Object.keys(route.query).length > 0) return readChoice(route.query)
    // An address that says nothing: as this browser saw the wall last. Filters are not remembered: they hide calls.
    return readChoice(Object.fromEntries(new URLSearchParams(recall(KEY) ?? '')))
  }

  function choose(change: Partial<Choice>): void {
    choice.value = { ...choice.value, ...change }
    const { group, sort, view } = writeChoice(choice.value) as Record<string, string | undefined>
    remember(KEY, new URLSearchParams({ ...(group && { group }), ...(sort && { sort }), ...(view && { view }) }).toString())
    window.clearTimeout(timer)
    timer = window.setTimeout(write, WRITE_MS)
  }

  function write(): void {
    timer = 0
    if (route.name === 'floor') void router.replace({ query: writeChoice(choice.value) })
  }

  watch(
    () => route.query,
    (query) => {
      if (timer !== 0 || route.name !== 'floor') return
      const read = readChoice(query)
      if (JSON.stringify(writeChoice(read)) !== JSON.stringify(writeChoice(choice.value))) choice.value = read
    },
  )
  onScopeDispose(() => window.clearTimeout(timer))
  return { choice, choose }
}
