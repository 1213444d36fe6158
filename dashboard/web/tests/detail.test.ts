import { expect, test } from 'vitest'

import type { CallDetail, Progress, Published, StepState, Text } from '@/api/types'
import { applyToDetail, loadDetail } from '@/feed/detail'

const AT = '2025-03-04T09:00:00.000Z'
const text = (start: number, words: string, role: Text['role'] = 'agent'): Text => ({
  utterance_id: `c1:${role}:${start}`, role, start_ms: start, end_ms: start + 800, text: words,
})
const event = (cursor: number, type: Published['type'], more: Partial<Published> = {}): Published => ({
  cursor, type, call_id: 'c1', at: AT, media_ms: null, ...more,
})
const loaded: CallDetail = {
  cursor: 10,
  call: {
    call_id: 'c1', state: 'live', started_at: AT, ended_at: null, reason: null, duration_ms: 3000,
    alerts: { critical: 0, warning: 0, info: 0 }, last_text: null, speaking: {}, gap_ms: 0, recording: false,
  },
  utterances: [text(2000, '二'), text(500, '一')],
  alerts: [],
  markers: [],
}

test('utterances stand in the order in which they were spoken', () => {
  expect(loadDetail(loaded).utterances.map((each) => each.text)).toEqual(['一', '二'])
})

test('a final that comes late still takes its place', () => {
  const state = applyToDetail(loadDetail(loaded), event(11, 'utterance.final', { utterance: text(1200, '客', 'customer') }))
  expect(state.utterances.map((each) => each.text)).toEqual(['一', '客', '二'])
})

test('events that the rows already contain change nothing', () => {
  const state = loadDetail(loaded)
  expect(applyToDetail(state, event(10, 'utterance.final', { utterance: text(500, '旧') }))).toBe(state)
})

test('events of another call change nothing', () => {
  const state = loadDetail(loaded)
  expect(applyToDetail(state, event(11, 'call.ended', { call_id: 'c2' }))).toBe(state)
})

test('a partial gives way to its final and does not come back', () => {
  const partial = event(10, 'utterance.partial', { utterance: text(4000, '这') })
  const spoken = applyToDetail(loadDetail(loaded), partial)
  expect(spoken.partials.map((each) => each.text)).toEqual(['这'])
  const final = applyToDetail(spoken, event(11, 'utterance.final', { utterance: text(4000, '这个') }))
  expect(final.partials).toEqual([])
  expect(applyToDetail(final, { ...partial, cursor: 11 }).partials).toEqual([])
})

test('the end of the call takes the partials away', () => {
  const spoken = applyToDetail(loadDetail(loaded), event(10, 'utterance.partial', { utterance: text(4000, '这') }))
  const ended = applyToDetail(spoken, event(11, 'call.ended', { reason: 'interrupted', media_ms: 6000 }))
  expect(ended.partials).toEqual([])
  expect(ended.call).toMatchObject({ state: 'ended', reason: 'interrupted', duration_ms: 6000 })
})

test('who hung up is known where the telephony says so, also when it says so late', () => {
  const first = applyToDetail(loadDetail(loaded), event(11, 'call.ended', { reason: 'disconnected', media_ms: 6000 }))
  expect(first.call).toMatchObject({ reason: 'disconnected', by: null })
  const then = applyToDetail(first, event(12, 'call.ended', { reason: 'hangup', by: 'customer', media_ms: 6000 }))
  expect(then.call).toMatchObject({ reason: 'hangup', by: 'customer' })
})

test('a hold that was marked when it began is the same mark when it is over', () => {
  const hold = {
    id: 'h', call_id: 'c1', rule_id: 'call.hold', severity: 'info' as const, role: 'unknown' as const,
    label: { zh: '保持', en: 'On hold' }, media_start_ms: 1000, media_end_ms: 1000,
  }
  const begun = applyToDetail(loadDetail(loaded), event(11, 'marker.added', { marker: hold }))
  const over = applyToDetail(begun, event(12, 'marker.added', { marker: { ...hold, media_end_ms: 5000 } }))
  expect(over.markers).toEqual([{ ...hold, media_end_ms: 5000 }])
})

const checklist = (script: string, state: StepState = 'due', media = 1000): Progress => ({
  call_id: 'c1', script, name: { zh: '流程', en: 'Script' }, media_ms: media, score: null,
  steps: [{ id: 'greeting', name: { zh: '问候', en: 'Greeting' }, state, due_ms: 10_000 }],
})

test('a checklist is loaded with the call and replaced as a whole', () => {
  const state = loadDetail({ ...loaded, progress: [checklist('service')] })
  expect(state.progress.map((each) => each.steps[0]?.state)).toEqual(['due'])
  const done = applyToDetail(state, event(11, 'script.progress', { progress: checklist('service', 'done') }))
  expect(done.progress.map((each) => each.steps[0]?.state)).toEqual(['done'])
})

test('a call that moves to another script leaves the first; what the rules wait for stays below', () => {
  const state = loadDetail({ ...loaded, progress: [checklist('rules'), checklist('service')] })
  expect(state.progress.map((each) => each.script)).toEqual(['service', 'rules'])
  const moved = applyToDetail(state, event(11, 'script.progress', { progress: checklist('sale') }))
  expect(moved.progress.map((each) => each.script)).toEqual(['sale', 'rules'])
})

test('notes, take-overs and emotions come once, also where the page knew them already', () => {
  const note = { id: 'n1', call_id: 'c1', media_ms: 500, by: 'li', at: AT, text: '复听' }
  const takeover = {
    id: 't1', call_id: 'c1', media_ms: 900, by: 'li', at: AT, reason: '急', state: 'asked' as const,
    attempts: 0, status: null, problem: null,
  }
  const emotion = { utterance_id: 'u', role: 'customer' as const, media_end_ms: 800, level: 2, trend: 0, feeling: 'calm' as const }
  let state = loadDetail({ ...loaded, notes: [note] })
  state = applyToDetail(state, event(11, 'note.added', { note }))
  state = applyToDetail(state, event(12, 'takeover.asked', { takeover }))
  state = applyToDetail(state, event(13, 'takeover.accepted', { takeover: { ...takeover, state: 'accepted' } }))
  state = applyToDetail(state, event(14, 'emotion.updated', { emotion }))
  state = applyToDetail(state, event(15, 'emotion.updated', { emotion: { ...emotion, level: 7 } }))
  expect(state.notes).toEqual([note])
  expect(state.takeovers.map((each) => each.state)).toEqual(['accepted'])
  expect(state.emotions.map((each) => each.level)).toEqual([7])
})

test('a whisper is there once, as the agent has seen it last', () => {
  const whisper = { id: 'w1', call_id: 'c1', text: '先安抚', by: 'li', media_ms: 1000 }
  const seen = { ...whisper, seen_at: '2026-11-26T12:00:00.000Z' }
  let state = applyToDetail(loadDetail({ ...loaded, whispers: [whisper] }), event(11, 'whisper.sent', { whisper }))
  expect(state.whispers).toEqual([whisper])
  state = applyToDetail(state, event(12, 'whisper.seen', { whisper: seen }))
  expect(state.whispers).toEqual([seen])
})
