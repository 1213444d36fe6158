import { afterEach, beforeEach, expect, test, vi } from 'vitest'

import { api, ApiError } from '@/api/http'
import type { Desk, Hint, Whisper } from '@/api/types'
import { appealOf, isBegun, writeAppeal } from '@/desk/appeals'
import { READ_MS, SETTLE_MS } from '@/desk/hints'
import { confirmWhisper, hideWhispers, holdWhile, load, queue, showWhispers, startDesk, stopDesk } from '@/desk/store'

const whisper = (id: string): Whisper =>
  ({ id, call_id: 'c', by: 'li', to: '8001', text: id, media_ms: 0, seen_at: null, confirmed_at: null }) as unknown as Whisper
const hint = (id: string, severity: Hint['severity'], media_ms: number): Hint => ({
  id, call_id: 'c', rule_id: id, text: { zh: id }, media_ms, severity,
})

/** A desk in a call with these hints, the first of which is shown. */
function inCall(...hints: Hint[]): Desk {
  const call = { call_id: 'c', state: 'live', started_at: new Date().toISOString(), duration_ms: 0 }
  const live = {
    call, whispers: [], progress: [], emotions: [], said: [],
    hints: hints.map((each) => ({ hint: each, answer: null })),
  }
  return { cursor: 1, others: 0, last: [], live } as unknown as Desk
}

const confirmed: string[] = []

beforeEach(() => {
  vi.useFakeTimers()
  const page = { addEventListener: () => undefined, removeEventListener: () => undefined }
  vi.stubGlobal('window', { ...page, setInterval, clearInterval, setTimeout, clearTimeout })
  vi.stubGlobal('document', { ...page, visibilityState: 'visible' })
  vi.stubGlobal('location', { protocol: 'http:', host: 'here' })
  vi.stubGlobal('WebSocket', class { close(): void {} })
  confirmed.length = 0
  vi.spyOn(api, 'seenWhisper').mockImplementation(async (_, id, was) => {
    if (was) confirmed.push(id)
    return { ...whisper(id), seen_at: 'now', confirmed_at: was ? 'now' : null } as Whisper
  })
})
afterEach(() => {
  stopDesk()
  vi.useRealTimers()
  vi.unstubAllGlobals()
  vi.restoreAllMocks()
})

test('a whisper is only confirmed once it has stood on the screen for a moment', async () => {
  const one = whisper('w1')
  await confirmWhisper(one)
  vi.advanceTimersByTime(10 * SETTLE_MS)
  await confirmWhisper(one)
  expect(confirmed).toEqual([])
  showWhispers([one])
  vi.advanceTimersByTime(SETTLE_MS - 1)
  await confirmWhisper(one)
  expect(confirmed).toEqual([])
  vi.advanceTimersByTime(1)
  showWhispers([one])
  await confirmWhisper(one)
  expect(confirmed).toEqual(['w1'])
})

test('a whisper that left the screen with the call has to come back there first', async () => {
  const one = whisper('w1')
  showWhispers([one])
  vi.advanceTimersByTime(10 * SETTLE_MS)
  hideWhispers()
  await confirmWhisper(one)
  showWhispers([one])
  await confirmWhisper(one)
  expect(confirmed).toEqual([])
})

test('a hint is held by what is on the page, and by nothing once that has gone', async () => {
  vi.spyOn(api, 'desk').mockResolvedValue(inCall(hint('a', 'info', 0)))
  startDesk('8001', () => undefined)
  await vi.advanceTimersByTimeAsync(0)
  expect(queue.value.shown?.id).toBe('a')
  queue.value = { ...queue.value, waiting: [{ hint: hint('b', 'critical', 0), at: performance.now() }] }
  const release = holdWhile(() => true)
  vi.advanceTimersByTime(2 * READ_MS)
  expect(queue.value.shown?.id).toBe('a')
  release()
  vi.advanceTimersByTime(1000)
  expect(queue.value.shown?.id).toBe('b')
})

test('what somebody wrote stays when they log in again, and is not shown to the next one', () => {
  vi.spyOn(api, 'desk').mockResolvedValue(inCall())
  startDesk('8001', () => undefined)
  writeAppeal('a1', '我说的是不保本')
  stopDesk()
  startDesk('8001', () => undefined)
  expect(appealOf('a1')).toBe('我说的是不保本')
  startDesk('8002', () => undefined)
  expect(appealOf('a1')).toBe('')
})

test('blanks are no appeal, and what was sent is forgotten', () => {
  writeAppeal('a1', ' \n')
  expect(isBegun('a1')).toBe(false)
  writeAppeal('a1', ' x')
  expect(isBegun('a1')).toBe(true)
  writeAppeal('a1', '')
  expect(appealOf('a1')).toBe('')
})

test('whoever may not see the desk any more is told no more of it', async () => {
  const closed = vi.fn()
  vi.stubGlobal('WebSocket', class { close = closed })
  const asked = vi.spyOn(api, 'desk').mockResolvedValue(inCall())
  startDesk('8001', () => undefined)
  await vi.advanceTimersByTimeAsync(10)
  expect(closed).not.toHaveBeenCalled()
  asked.mockRejectedValue(new ApiError('role_not_allowed', 403))
  await load()
  expect(closed).toHaveBeenCalledOnce()
})
