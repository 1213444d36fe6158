/** The desk's state: loaded from one route, then followed by events. One for the page. */

import { computed, ref, shallowRef, type Ref } from 'vue'

import { api, ApiError, serverNow } from '@/api/http'
import type { Hint, Published, Whisper, Worth } from '@/api/types'
import { EventSocket, type ConnectionState, type SocketLike } from '@/feed/socket'
import { pause } from '@/lib/retry'
import { forgetAppeals } from './appeals'
import { advance, answered, EMPTY, offer, restored, SETTLE_MS, unanswered, type Queue } from './hints'
import { applyToDesk, loadDesk, withWhisper, type DeskState } from './state'

export const desk = shallowRef<DeskState | null>(null)
export const queue = shallowRef<Queue>(EMPTY)
export const deskConnection: Ref<ConnectionState> = ref('connecting')
export const deskError = shallowRef<ApiError | null>(null)
/** What the server did not take, until the next thing is done. */
export const deskRefusal = shallowRef<ApiError | null>(null)
/** An alert of one's own changed: the look back is out of date. */
export const alertsChanged = ref(0)
export const unread = computed(() => desk.value?.whispers.filter((each) => !each.confirmed_at) ?? [])

/** Events that came while the state was on its way; what it holds already changes nothing. */
let waiting: Published[] | null = null
let generation = 0
let running = false
let me = ''
let ticking = 0
let onRefused: () => void = () => undefined

const nobody = () => false
let isHeld = nobody
/** When the whispers that stand on the screen came there, milliseconds of the page's clock. */
const appeared = new Map<string, number>()

/** While `asked` says so the shown hint stays where it is. Returns how to let go of it: with what is on the page. */
export function holdWhile(asked: () => boolean): () => void {
  isHeld = asked
  return () => {
    if (isHeld === asked) isHeld = nobody
  }
}

const socket = new EventSocket(
  (cursor) => {
    const scheme = location.protocol === 'https:' ? 'wss' : 'ws'
    return new WebSocket(`${scheme}://${location.host}/api/events?cursor=${cursor}`) as unknown as SocketLike
  },
  { set: (act, ms) => window.setTimeout(act, ms), clear: (id) => window.clearTimeout(id), random: Math.random },
  {
    cursor: () => desk.value?.cursor ?? 0,
    event: (event) => {
      if (waiting !== null) waiting.push(event)
      else take(event)
    },
    resync: () => void load(),
    state: (state) => (deskConnection.value = state),
    refused: () => onRefused(),
  },
)

/** Follow the calls of this agent. `refused`: the session is over. */
export function startDesk(username: string, refused: () => void): void {
  stopDesk()
  running = true
  if (me !== username) forgetAppeals()
  me = username
  onRefused = refused
  ticking = window.setInterval(tick, 500)
  window.addEventListener('online', hurryDesk)
  window.addEventListener('offline', dropped)
  document.addEventListener('visibilitychange', hurryWhenSeen)
  void load()
}

export function stopDesk(): void {
  running = false
  generation += 1
  waiting = null
  socket.stop()
  window.clearInterval(ticking)
  window.removeEventListener('online', hurryDesk)
  window.removeEventListener('offline', dropped)
  document.removeEventListener('visibilitychange', hurryWhenSeen)
  desk.value = null
  queue.value = EMPTY
  appeared.clear()
  deskError.value = deskRefusal.value = null
  deskConnection.value = 'connecting'
}

/** Asks until there is an answer; the error is told meanwhile. */
export async function load(): Promise<void> {
  const mine = ++generation
  for (let attempt = 0; ; attempt += 1) {
    // What was told before the question is in its answer.
    waiting = []
    try {
      const answer = await api.desk()
      if (mine !== generation || !running) return
      const before = desk.value?.call?.call_id
      const loaded = loadDesk(answer)
      desk.value = loaded
      deskError.value = null
      const fresh = loaded.call?.call_id === before ? queue.value : EMPTY
      const began = loaded.call === null ? 0 : Date.parse(loaded.call.started_at)
      const mediaMs = Math.max(loaded.call?.duration_ms ?? 0, Number.isNaN(began) ? 0 : serverNow() - began)
      queue.value = advance(restored(fresh, answer.live?.hints ?? [], mediaMs, performance.now()), performance.now(), isHeld())
      break
    } catch (caught) {
      if (mine !== generation || !running) return
      deskError.value = caught instanceof ApiError ? caught : new ApiError('unexpected', 0)
      if (deskError.value.status === 401 || deskError.value.status === 403) {
        socket.stop()
        return
      }
      await pause(attempt)
      if (mine !== generation || !running) return
    }
  }
  const came = waiting ?? []
  waiting = null
  for (const event of came) take(event)
  socket.start()
}

function take(event: Published): void {
  if (desk.value === null) return
  // Another event of these may ask for the state anew: what follows it waits for that.
  if (waiting !== null) {
    waiting.push(event)
    return
  }
  const before = desk.value
  const { state, reload } = applyToDesk(before, event, me)
  desk.value = state
  if (state === before) return
  const now = performance.now()
  if (event.call_id === state.call?.call_id) {
    if (event.hint) queue.value = advance(offer(queue.value, event.hint, now), now, isHeld())
    if (event.answer) queue.value = advance(answered(queue.value, event.answer.hint_id, event.answer.answer), now, isHeld())
  }
  if (event.type === 'alert.updated' || event.type === 'alert.raised') alertsChanged.value += 1
  if (reload) void load()
}

function tick(): void {
  queue.value = advance(queue.value, performance.now(), isHeld())
}

/** What is shown was just put there: the key or click was meant for what was there before. */
function settles(): boolean {
  return performance.now() - queue.value.since < SETTLE_MS
}

/** The shown hint, answered: gone at once, and back again if the server does not take it. */
export async function answerShown(worth: Worth): Promise<void> {
  const hint = queue.value.shown
  if (hint !== null && !settles()) await answerHint(hint, worth)
}

export async function answerHint(hint: Hint, worth: Worth): Promise<void> {
  deskRefusal.value = null
  queue.value = advance(answered(queue.value, hint.id, worth), performance.now(), false)
  try {
    await api.answerHint(hint.call_id, hint.id, worth)
  } catch (caught) {
    const error = caught instanceof ApiError ? caught : new ApiError('unexpected', 0)
    deskRefusal.value = error
    // Judged at another desk meanwhile: the event says how.
    if (error.code !== 'hint_answered') queue.value = unanswered(queue.value, hint, performance.now())
  }
}

const telling = new Set<string>()
let confirmedAt = -Infinity

/** They stand on a screen that somebody may look at. */
export function showWhispers(whispers: readonly Whisper[]): void {
  for (const whisper of whispers) {
    if (!appeared.has(whisper.id)) appeared.set(whisper.id, performance.now())
    void seeWhisper(whisper, false)
  }
}

/** None stands there any more. */
export function hideWhispers(): void {
  appeared.clear()
}

/** It was read. Only what has stood there long enough: else the key or click was meant for what was there before. */
export async function confirmWhisper(whisper: Whisper): Promise<void> {
  const since = appeared.get(whisper.id)
  if (since !== undefined && performance.now() - since >= SETTLE_MS) await seeWhisper(whisper, true)
}

async function seeWhisper(whisper: Whisper, confirmed: boolean): Promise<void> {
  const key = `${whisper.id} ${confirmed}`
  if (telling.has(key) || (confirmed ? whisper.confirmed_at : whisper.seen_at)) return
  if (confirmed) {
    // The next whisper takes the place of the one that was confirmed: the second click was not meant for it.
    if (performance.now() - confirmedAt < SETTLE_MS) return
    confirmedAt = performance.now()
  }
  telling.add(key)
  try {
    const now = await api.seenWhisper(whisper.call_id, whisper.id, confirmed)
    if (desk.value !== null) desk.value = { ...desk.value, whispers: withWhisper(desk.value.whispers, now) }
  } catch (caught) {
    if (confirmed) deskRefusal.value = caught instanceof ApiError ? caught : new ApiError('unexpected', 0)
  } finally {
    telling.delete(key)
  }
}

export function hurryDesk(): void {
  if (deskError.value) void load()
  else socket.hurry()
}

function dropped(): void {
  socket.drop()
}

function hurryWhenSeen(): void {
  if (document.visibilityState === 'visible') hurryDesk()
}
