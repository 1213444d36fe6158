/**
 * How long a call lasts, as the text of an element: `<span v-length="call" />`. Hundreds are in view, and a second
 * that passes must not draw a component for each of them; so one clock writes all that have changed.
 */

import type { Directive } from 'vue'

import { serverNow } from '@/api/http'
import type { FloorCall } from '@/api/types'
import { lengthOf } from './call'
import { clockTime } from './format'

const shown = new Map<HTMLElement, FloorCall>()
let timer = 0

function write(element: HTMLElement, call: FloorCall, now: number): void {
  const text = clockTime(lengthOf(call, now))
  if (element.textContent !== text) element.textContent = text
}

function tick(): void {
  const now = serverNow()
  for (const [element, call] of shown) write(element, call, now)
}

export const vLength: Directive<HTMLElement, FloorCall> = {
  beforeMount(element, { value }) {
    shown.set(element, value)
    write(element, value, serverNow())
    if (shown.size === 1) timer = window.setInterval(tick, 1000)
  },
  updated(element, { value, oldValue }) {
    if (value === oldValue) return
    shown.set(element, value)
    write(element, value, serverNow())
  },
  unmounted(element) {
    shown.delete(element)
    if (shown.size === 0) window.clearInterval(timer)
  },
}
