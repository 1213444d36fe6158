import { describe, expect, test } from 'vitest'

import type { Alert, Floor, FloorCall, Published, Step, Text } from '@/api/types'
import { apply, channelKey, emptyFloor, loadFloor, MOST_MOODS, type FloorState } from '@/feed/reducer'

const AT = '2025-03-04T09:00:00.000Z'

function event(cursor: number, type: Published['type'], more: Partial<Published> = {}): Published {
  return { cursor, type, call_id: 'c1', at: AT, media_ms: 0, ...more }
}

function text(start: number, words: string, role: Text['role'] = 'agent'): Text {
  return { utterance_id: `c1:${role}:${start}`, role, start_ms: start, end_ms: start + 900, text: words }
}

function alert(id: string, more: Partial<Alert> = {}): Alert {
  return {
    id,
    call_id: 'c1',
    rule_id: 'redline.guaranteed_return',
    rule_version: '1+00000000',
    name: { zh: '承诺保本保收益', en: 'Guaranteed return' },
    severity: 'critical',
    role: 'agent',
    media_start_ms: 1000,
    media_end_ms: 1800,
    evidence: { text: '这个保本', matched: ['保本'], spans: [[2, 4]] },
    state: 'open',
    latency_ms: { total: 1200 },
    ...more,
  }
}

const started = event(1, 'call.started', { call: { call_id: 'c1', agent: '王敏', queue: '理财' } })

function after(...events: Published[]): FloorState {
  const state = emptyFloor()
  for (const each of events) apply(state, each)
  return state
}

const story: Published[] = [
  started,
  event(1, 'call.updated', { speaking: { agent: true }, media_ms: 400 }),
  event(1, 'utterance.partial', { utterance: text(500, '这个'), media_ms: 900 }),
  event(2, 'utterance.final', { utterance: text(500, '这个保本'), media_ms: 1400 }),
  event(3, 'alert.raised', { alert: alert('a1'), media_ms: 1400 }),
  event(4, 'alert.updated', { alert: alert('a1', { state: 'acknowledged' }) }),
  event(5, 'call.ended', { reason: 'hangup', media_ms: 42_000 }),
]

describe('one event at a time', () => {
  test('a call that starts stands on the floor', () => {
    const call = after(started).calls.get('c1')
    expect(call).toMatchObject({ state: 'live', agent: '王敏', started_at: AT, alerts: { critical: 0 } })
  })

  test('a call that passes to another team leaves nothing behind', () => {
    const state = after(...story.slice(0, 6), event(7, 'call.left'))
    expect([state.calls.size, state.alerts.size, state.partials.size, state.recent.size, state.finals.size]).toEqual([
      0, 0, 0, 0, 0,
    ])
    expect(state.cursor).toBe(7)
  })

  test('who is speaking is shown although the cursor stands still', () => {
    const state = after(started, event(1, 'call.updated', { speaking: { customer: true } }))
    expect(state.calls.get('c1')?.speaking).toEqual({ customer: true })
    expect(state.cursor).toBe(1)
  })

  test('a partial is replaced by its final', () => {
    const partial = event(1, 'utterance.partial', { utterance: text(500, '这个') })
    expect(after(started, partial).partials.get(channelKey('c1', 'agent'))?.text).toBe('这个')
    const state = after(started, partial, event(2, 'utterance.final', { utterance: text(500, '这个保本') }))
    expect(state.partials.size).toBe(0)
    expect(state.calls.get('c1')?.last_text?.text).toBe('这个保本')
  })

  test('a partial that comes after its final is not shown', () => {
    const state = after(
      started,
      event(2, 'utterance.final', { utterance: text(500, '这个保本') }),
      event(2, 'utterance.partial', { utterance: text(500, '这个') }),
    )
    expect(state.partials.size).toBe(0)
  })

  test('a partial of the other channel stays while this channel becomes final', () => {
    const state = after(
      started,
      event(1, 'utterance.partial', { utterance: text(300, '喂', 'customer') }),
      event(2, 'utterance.final', { utterance: text(500, '您好') }),
    )
    expect(state.partials.get(channelKey('c1', 'customer'))?.text).toBe('喂')
  })

  test('an empty final keeps the words that were heard before', () => {
    const state = after(
      started,
      event(2, 'utterance.final', { utterance: text(500, '您好') }),
      event(3, 'utterance.final', { utterance: text(2500, '') }),
    )
    expect(state.calls.get('c1')?.last_text?.text).toBe('您好')
  })

  test('a raised alert counts on its call and is told once', () => {
    const state = after(started)
    const raised = event(2, 'alert.raised', { alert: alert('a1') })
    expect(apply(state, raised).raised).toMatchObject({ id: 'a1', agent: '王敏', queue: '理财', at: AT })
    expect(apply(state, raised).raised).toBeUndefined()
    expect(state.calls.get('c1')?.alerts).toEqual({ critical: 1, warning: 0, info: 0 })
  })

  test('an alert that is updated changes its state, is not told again and keeps its latency', () => {
    const state = after(started, event(2, 'alert.raised', { alert: alert('a1') }))
    const change = apply(
      state,
      event(3, 'alert.updated', { alert: alert('a1', { state: 'resolved', latency_ms: { total: null } }) }),
    )
    expect(change.raised).toBeUndefined()
    expect(state.alerts.get('a1')).toMatchObject({ state: 'resolved', latency_ms: { total: 1200 } })
    expect(state.calls.get('c1')?.alerts.critical).toBe(1)
  })

  test('a withdrawn alert no longer counts', () => {
    const state = after(
      started,
      event(2, 'alert.raised', { alert: alert('a1') }),
      event(3, 'alert.updated', { alert: alert('a1', { state: 'withdrawn' }) }),
    )
    expect(state.calls.get('c1')?.alerts.critical).toBe(0)
  })

  test('a call that ended keeps its reason and length and says no more', () => {
    const state = after(...story)
    expect(state.calls.get('c1')).toMatchObject({ state: 'ended', reason: 'hangup', duration_ms: 42_000, speaking: {} })
    apply(state, event(5, 'call.updated', { speaking: { agent: true } }))
    apply(state, event(5, 'utterance.partial', { utterance: text(41_000, '再') }))
    expect(state.calls.get('c1')?.speaking).toEqual({})
    expect(state.partials.size).toBe(0)
  })

  test('late words of a call that is not on the floor do not put it there', () => {
    const state = after(
      event(2, 'utterance.final', { utterance: text(500, '您好') }),
      event(3, 'alert.updated', { alert: alert('a1') }),
      event(4, 'call.ended', { reason: 'hangup', media_ms: 10 }),
    )
    expect(state.calls.size).toBe(0)
    expect(state.alerts.size).toBe(1)
  })

  test('health is shown as it comes', () => {
    const health = { step: 2, name: 'no_partials' as const }
    expect(after(event(0, 'health', { call_id: null, media_ms: null, health })).health).toEqual(health)
  })
})

describe('what a card shows', () => {
  const emotion = (media_end_ms: number, level: number, role: Text['role'] = 'customer') => ({
    role, media_end_ms, level, trend: 0, feeling: 'calm' as const,
  })
  const step = (state: Step['state'], due_ms: number | null = null): Step => ({ id: state, name: { zh: state }, state, due_ms })
  const progress = (script: string, ...steps: Step[]) => ({ call_id: 'c1', script, name: { zh: script }, media_ms: 0, steps })

  test('a curve of the customer, not longer than there is room for', () => {
    const state = after(started, ...Array.from({ length: 60 }, (_, n) =>
      event(2 + n, 'emotion.updated', { emotion: emotion(n * 1000, n % 10, n % 3 === 0 ? 'agent' : 'customer') }),
    ))
    const moods = state.calls.get('c1')?.moods ?? []
    expect(moods).toHaveLength(MOST_MOODS)
    expect(moods.at(-1)).toMatchObject({ media_ms: 59_000, level: 9 })
    expect(moods.every((mood) => (mood.media_ms / 1000) % 3 !== 0)).toBe(true)
  })

  test('an utterance that is felt again takes the place of what it was', () => {
    const state = after(
      started,
      event(2, 'emotion.updated', { emotion: emotion(1000, 3) }),
      event(3, 'emotion.updated', { emotion: emotion(1000, 7) }),
    )
    expect(state.calls.get('c1')?.moods.map((mood) => mood.level)).toEqual([7])
  })

  test('how far the script is, without what was not needed', () => {
    const steps = [step('done'), step('too_late'), step('skipped'), step('missed'), step('due', 9000), step('waiting')]
    const state = after(started, event(2, 'script.progress', { progress: progress('sale', ...steps) }))
    expect(state.calls.get('c1')?.progress).toMatchObject({
      script: 'sale', done: 2, steps: 5, missed: 1, next: { zh: 'due' }, due_ms: 9000,
    })
  })

  test('the rules’ own list gives way to a script', () => {
    const rules = event(2, 'script.progress', { progress: progress('rules', step('waiting')) })
    expect(after(started, rules).calls.get('c1')?.progress?.script).toBe('rules')
    const sale = event(3, 'script.progress', { progress: progress('sale', step('done')) })
    expect(after(started, rules, sale, { ...rules, cursor: 4 }).calls.get('c1')?.progress?.script).toBe('sale')
  })

  test('of alerts as many are kept as a page can bear, the oldest go', () => {
    const state = after(
      started,
      ...Array.from({ length: 700 }, (_, n) =>
        event(2 + n, 'alert.raised', { call_id: `c${n}`, alert: alert(`a${n}`, { call_id: `c${n}`, media_end_ms: n }) }),
      ),
    )
    expect([state.alerts.size, state.alerts.has('a199'), state.alerts.has('a200')]).toEqual([500, false, true])
    expect(state.open.critical).toBe(700)
  })
})

describe('the same events again', () => {
  test('applied twice is applied once', () => {
    const once = after(...story)
    for (const each of story) expect(apply(once, each).raised).toBeUndefined()
    expect(once).toEqual(after(...story))
  })

  test('each event doubled on the spot gives the same floor', () => {
    expect(after(...story.flatMap((each) => [each, each]))).toEqual(after(...story))
  })

  test('going on from any cursor gives the same stored facts', () => {
    const whole = after(...story)
    for (let cut = 1; cut < story.length; cut += 1) {
      const state = after(...story.slice(0, cut))
      const seen = state.cursor
      for (const each of story.filter((one) => one.cursor > seen)) apply(state, each)
      expect(state.calls.get('c1')).toEqual(whole.calls.get('c1'))
      expect(state.alerts).toEqual(whole.alerts)
    }
  })
})

describe('loading the floor', () => {
  const call: FloorCall = {
    call_id: 'c1', agent: '王敏', queue: '理财', state: 'live', started_at: AT, ended_at: null, reason: null,
    duration_ms: 5000, alerts: { critical: 1, warning: 0, info: 0 }, last_text: text(500, '这个保本'),
    speaking: {}, gap_ms: 0, recording: true, open: { critical: 1, warning: 0, info: 0 }, moods: [], progress: null,
  }
  const floor: Floor = {
    cursor: 2, calls: [call], alerts: [alert('a1')], health: null, open: { critical: 3, warning: 0, info: 0 },
    figures: { acknowledge_ms: null, acknowledged: 0, answered: 0, in_time: 0, answer_limit_s: 25 },
  }

  test('open alerts are counted on from what the server counted, also those that this page never saw', () => {
    const state = emptyFloor()
    loadFloor(state, floor)
    apply(state, event(3, 'alert.updated', { alert: alert('a1', { state: 'acknowledged' }) }))
    apply(state, event(4, 'alert.updated', { alert: alert('older', { state: 'resolved', call_id: 'past' }) }))
    apply(state, event(5, 'alert.raised', { alert: alert('a2', { severity: 'info' }) }))
    expect(state.open).toEqual({ critical: 1, warning: 0, info: 1 })
    expect(state.calls.get('c1')?.open).toEqual({ critical: 0, warning: 0, info: 1 })
    expect(state.calls.get('c1')?.alerts).toEqual({ critical: 1, warning: 0, info: 1 })
  })

  test('rows that are newer than the cursor are not counted twice', () => {
    const state = emptyFloor()
    loadFloor(state, floor)
    const change = apply(state, event(3, 'alert.raised', { alert: alert('a1') }))
    expect(change.raised).toBeUndefined()
    expect(state.calls.get('c1')?.alerts.critical).toBe(1)
  })

  test('a call that is no longer live when the floor is loaded again has ended', () => {
    const state = emptyFloor()
    loadFloor(state, floor)
    loadFloor(state, { ...floor, cursor: 9, calls: [] })
    expect(state.calls.get('c1')?.state).toBe('ended')
  })

  test('the start of a call that the rows already know changes nothing but its facts', () => {
    const state = emptyFloor()
    loadFloor(state, { ...floor, cursor: 0 })
    apply(state, started)
    expect(state.calls.get('c1')).toMatchObject({ last_text: { text: '这个保本' }, alerts: { critical: 1 } })
  })
})
