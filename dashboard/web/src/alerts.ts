/**
 * What this person does with alerts. A step shows at once and is rolled back if the server refuses it; the
 * event of the step, which everybody gets, then takes the place of what was foreseen.
 */

import { shallowReactive, shallowRef } from 'vue'

import { api, ApiError, type AlertStep, type AlertWish } from '@/api/http'
import type { AlertState, FloorAlert } from '@/api/types'
import { foreseen, isPossible, stateOf, type Wish } from '@/feed/life'
import { onEvent } from '@/feed/store'
import { user } from '@/session'

/** By alert: asked for, and not told by an event yet. */
export const pending = shallowReactive(new Map<string, Wish>())

/** The last refusal, until the person has seen it. */
export const refusal = shallowRef<Refusal | null>(null)

export interface Refusal {
  error: ApiError
  /** What the alert has become, when that was why. */
  came: AlertState | null
  /** Who was faster; `null`: nobody, or the clock. */
  by: string | null
  at: string | null
}

/** As many as the server takes in one request. */
const MOST_AT_ONCE = 200
/** An answer whose event does not come: the connection was cut, and the floor will be loaded anew. */
const EVENT_WITHIN_MS = 4000
const SHOWN_MS = 8000

let hiding = 0

/** Steps are asked for one after another: what is typed ahead is decided on what was foreseen before. */
let asking: Promise<unknown> = Promise.resolve()

onEvent(
  ({ alert, change }) => {
    if (!alert || !change) return
    const wish = pending.get(alert.id)
    // An earlier step of one's own does not take the place of the one that is still asked for.
    if (wish && (change.by !== wish.by || change.action === wish.step.replace('-', '_'))) pending.delete(alert.id)
  },
  () => pending.clear(),
)

/** The alert as this person should see it now. */
export function asWished(alert: FloorAlert): FloorAlert {
  return foreseen(alert, pending.get(alert.id))
}

/** One step for one alert, or for all of a card that can go it. Whether the server agreed. */
export async function act(step: AlertStep, alerts: readonly FloorAlert[], more: Omit<AlertWish, 'also' | 'seen'> = {}): Promise<boolean> {
  const able = alerts
    .map(asWished)
    .filter((alert) => isPossible(alert, step))
    .slice(0, MOST_AT_ONCE + 1)
  const [first, ...others] = able
  const me = user.value?.username
  if (!first || !me) return false
  const wish: Wish = { step, by: me, ...(more.to === undefined ? {} : { to: more.to }) }
  for (const alert of able) pending.set(alert.id, wish)
  const rollBack = () => {
    for (const alert of able) if (pending.get(alert.id) === wish) pending.delete(alert.id)
  }
  dismissRefusal()
  try {
    const asked: AlertWish = { ...more }
    if (step !== 'comment') {
      asked.seen = { state: stateOf(first), owner: first.owner ?? null }
      asked.also = others.map((alert) => alert.id)
    }
    const answer = asking.then(() => api.alertStep(first.id, step, asked))
    asking = answer.catch(() => undefined)
    await answer
    window.setTimeout(rollBack, EVENT_WITHIN_MS)
    return true
  } catch (caught) {
    rollBack()
    refuse(caught instanceof ApiError ? caught : new ApiError('unexpected', 0))
    return false
  }
}

function refuse(error: ApiError): void {
  refusal.value = {
    error,
    came: (error.more.came as AlertState | undefined) ?? null,
    by: error.more.by ?? null,
    at: error.more.at ?? null,
  }
  window.clearTimeout(hiding)
  hiding = window.setTimeout(dismissRefusal, SHOWN_MS)
}

export function dismissRefusal(): void {
  window.clearTimeout(hiding)
  refusal.value = null
}
