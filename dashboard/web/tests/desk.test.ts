import { expect, test } from 'vitest'

import type { CallView, Desk, Hint, Published, Severity } from '@/api/types'
import {
  advance, answered, EMPTY, MOST_EARLIER, MOST_WAITING, offer, READ_MS, restored, SHOWN_MS, STALE_MS, unanswered, type Queue,
} from '@/desk/hints'
import { characters, heard, pace, speedOf } from '@/desk/pace'
import { applyToDesk, currentStep, lacking, lists, loadDesk, withWhisper } from '@/desk/state'

const hint = (id: string, severity: Severity = 'info', rule_id = id, media_ms = 0): Hint => ({
  id, call_id: 'c', rule_id, text: { zh: id }, media_ms, severity,
})

/** Come one after another, a millisecond apart. */
function waiting(...hints: Hint[]): Queue {
  return hints.reduce((queue, each, at) => offer(queue, each, at), EMPTY)
}

const ids = (queue: Queue): string[] => queue.waiting.map((each) => each.hint.id)

// ── the queue of hints ──────────────────────────────────────────────────────────────────────────

test('the first hint is shown at once, those after it wait', () => {
  const first = advance(offer(EMPTY, hint('a'), 0), 0, false)
  expect(first.shown?.id).toBe('a')
  const second = advance(offer(first, hint('b', 'critical'), 10), 10, false)
  expect(second.shown?.id).toBe('a')
  expect(ids(second)).toEqual(['b'])
})

test('the most urgent comes first, of equally urgent ones the newest', () => {
  const queue = waiting(hint('i1'), hint('w1', 'warning'), hint('i2'), hint('c1', 'critical'), hint('w2', 'warning'))
  expect(ids(queue)).toEqual(['c1', 'w2', 'w1', 'i2', 'i1'])
})

test('no more than a few wait: the least urgent and oldest becomes an earlier one', () => {
  const many = Array.from({ length: MOST_WAITING }, (_, at) => hint(`w${at}`, 'warning'))
  const queue = waiting(hint('old'), ...many)
  expect(queue.waiting).toHaveLength(MOST_WAITING)
  expect(queue.earlier).toEqual([{ hint: hint('old'), answer: null }])
})

test('however many come, everything stays bounded', () => {
  let queue = EMPTY
  for (let at = 0; at < 1000; at += 1) queue = advance(offer(queue, hint(`h${at}`), at), at, false)
  expect(queue.waiting.length).toBeLessThanOrEqual(MOST_WAITING)
  expect(queue.earlier.length).toBeLessThanOrEqual(MOST_EARLIER)
})

test('of two hints from one rule the newer waits', () => {
  const queue = waiting(hint('a', 'info', 'r'), hint('b', 'info', 'r'))
  expect(ids(queue)).toEqual(['b'])
  expect(queue.earlier[0]?.hint.id).toBe('a')
})

test('a hint that comes again changes nothing', () => {
  const queue = advance(waiting(hint('a'), hint('b')), 2, false)
  expect(offer(queue, hint('a'), 5)).toBe(queue)
  expect(offer(queue, hint('b'), 5)).toBe(queue)
  const over = answered(queue, 'b', 'useful')
  expect(offer(over, hint('b'), 5)).toBe(over)
})

test('what is shown gives way to something more urgent once it could be read', () => {
  const queue = offer(advance(offer(EMPTY, hint('a'), 0), 0, false), hint('c', 'critical'), 1)
  expect(advance(queue, READ_MS - 1, false).shown?.id).toBe('a')
  const after = advance(queue, READ_MS, false)
  expect(after.shown?.id).toBe('c')
  expect(after.earlier[0]).toEqual({ hint: hint('a'), answer: null })
})

test('nothing changes under the cursor, however urgent', () => {
  const queue = offer(advance(offer(EMPTY, hint('a'), 0), 0, false), hint('c', 'critical'), 1)
  expect(advance(queue, 50_000, true).shown?.id).toBe('a')
})

test('to something as urgent it gives way after a minute, and to nothing never', () => {
  const alone = advance(offer(EMPTY, hint('a'), 0), 0, false)
  expect(advance(alone, 10 * SHOWN_MS, false)).toBe(alone)
  const queue = offer(alone, hint('b'), SHOWN_MS - 10)
  expect(advance(queue, SHOWN_MS - 1, false).shown?.id).toBe('a')
  expect(advance(queue, SHOWN_MS, false).shown?.id).toBe('b')
})

test('what has waited too long is not shown any more', () => {
  const queue = offer(advance(offer(EMPTY, hint('a'), 0), 0, false), hint('b'), 0)
  const late = advance(queue, STALE_MS, true)
  expect(ids(late)).toEqual([])
  expect(late.earlier[0]?.hint.id).toBe('b')
})

test('after an answer the next one comes', () => {
  const queue = advance(waiting(hint('a'), hint('b', 'warning')), 2, false)
  expect(queue.shown?.id).toBe('b')
  const next = advance(answered(queue, 'b', 'useful'), 3, false)
  expect(next.shown?.id).toBe('a')
  expect(next.earlier).toEqual([{ hint: hint('b', 'warning'), answer: 'useful' }])
})

test('an answer from elsewhere takes a hint out of the queue', () => {
  const queue = answered(waiting(hint('a'), hint('b')), 'a', 'dismissed')
  expect(ids(queue)).toEqual(['b'])
  expect(answered(queue, 'a', 'useful').earlier[0]?.answer).toBe('useful')
})

test('an answer that was not taken brings the hint back', () => {
  const queue = advance(offer(EMPTY, hint('a'), 0), 0, false)
  const back = unanswered(answered(queue, 'a', 'useful'), hint('a'), 9)
  expect([back.shown?.id, back.earlier]).toEqual(['a', []])
  const busy = unanswered(advance(offer(answered(queue, 'a', 'useful'), hint('b'), 5), 5, false), hint('a'), 9)
  expect([busy.shown?.id, busy.earlier]).toEqual(['b', [{ hint: hint('a'), answer: null }]])
})

test('after a reload what is fresh and open waits again, the rest is past', () => {
  const told = [
    { hint: hint('old', 'info', 'r1', 1_000), answer: null },
    { hint: hint('done', 'info', 'r2', 99_000), answer: 'useful' as const },
    { hint: hint('open', 'info', 'r3', 99_500), answer: null },
  ]
  const queue = restored(EMPTY, told, 100_000, 5_000_000)
  expect(ids(queue)).toEqual(['open'])
  expect(queue.earlier.map((each) => each.hint.id)).toEqual(['done', 'old'])
  expect(restored(queue, told, 100_000, 5_000_001)).toEqual(queue)
})

// ── speed ───────────────────────────────────────────────────────────────────────────────────────

test('characters are letters, ideographs and digits, of any plane', () => {
  expect(characters('您好，𠮷 12 ***** OK!')).toBe(7)
})

test('the pauses between utterances do not slow anybody down', () => {
  const text = (at: number, words: string) => ({
    utterance_id: String(at), role: 'agent' as const, start_ms: at, end_ms: at + 3_000, text: words,
  })
  let said = heard([], text(0, '字'.repeat(10)))
  expect(pace(said)).toBeNull()
  said = heard(said, text(20_000, '字'.repeat(14)))
  expect(pace(said)).toBe(240)
  expect(pace(heard(said, text(20_000, '字'.repeat(14))))).toBe(240)
  expect(pace(heard(said, text(60_000, '字'.repeat(20))))).toBe(400)
  expect([speedOf(100), speedOf(240), speedOf(301)]).toEqual(['slow', 'usual', 'fast'])
})

// ── the state of the desk ───────────────────────────────────────────────────────────────────────

const call: CallView = {
  call_id: 'c', state: 'live', started_at: '2026-03-01T08:30:00.000Z', ended_at: null, reason: null, duration_ms: null,
  alerts: { info: 0, warning: 0, critical: 0 }, last_text: null, speaking: {}, gap_ms: 0, recording: false,
}
const desk: Desk = {
  cursor: 5, others: 0, last: [],
  live: { call, hints: [], whispers: [], progress: [], emotions: [], said: [] },
}
const event = (cursor: number, type: Published['type'], more: Partial<Published> = {}): Published => ({
  cursor, type, call_id: 'c', at: '2026-03-01T08:30:09.000Z', media_ms: 9_000, ...more,
})

test('what the loaded state holds already is not applied again', () => {
  const state = loadDesk(desk)
  expect(applyToDesk(state, event(5, 'call.ended'), 'me')).toEqual({ state, reload: false })
})

test('a call that begins, ends or leaves is asked for anew', () => {
  for (const type of ['call.started', 'call.ended', 'call.left'] as const) {
    expect(applyToDesk(loadDesk(desk), event(6, type), 'me').reload).toBe(true)
  }
})

test('only whispers to oneself are kept, once each', () => {
  const whisper = { id: 'w', call_id: 'c', text: 't', by: 'li', media_ms: 1, to: 'me' }
  let { state } = applyToDesk(loadDesk(desk), event(6, 'whisper.sent', { whisper }), 'me')
  state = applyToDesk(state, event(7, 'whisper.sent', { whisper: { ...whisper, id: 'x', to: 'other' } }), 'me').state
  expect(state.whispers).toEqual([whisper])
  expect(withWhisper(state.whispers, { ...whisper, seen_at: 'now' })).toHaveLength(1)
})

test('feelings and words of the customer are not the agent’s', () => {
  const emotion = { role: 'customer' as const, media_end_ms: 1, level: 9, trend: 0, feeling: 'angry' as const }
  let { state } = applyToDesk(loadDesk(desk), event(6, 'emotion.updated', { emotion }), 'me')
  expect(state.emotion).toBeNull()
  state = applyToDesk(state, event(7, 'emotion.updated', { emotion: { ...emotion, role: 'agent' } }), 'me').state
  expect(state.emotion?.level).toBe(9)
})

test('the step that is due first is the current one, then the next that is required', () => {
  const step = (id: string, state: 'due' | 'waiting' | 'missed' | 'done', due_ms: number | null = null, required = true) => ({
    id, name: { zh: id }, state, due_ms, required,
  })
  const script = { call_id: 'c', script: 's', name: {}, media_ms: 1, steps: [step('late', 'due', 9), step('soon', 'due', 5)] }
  const rules = { ...script, script: 'rules', steps: [step('gone', 'missed'), step('maybe', 'waiting', null, false), step('next', 'waiting')] }
  expect(lists([rules, script]).map((each) => each.script)).toEqual(['s', 'rules'])
  expect(currentStep([rules, script])?.id).toBe('soon')
  expect(currentStep([rules])?.id).toBe('next')
  expect(currentStep([])).toBeNull()
  expect(lacking([rules, script]).map((each) => each.id)).toEqual(['gone'])
})
