import { describe, expect, test } from 'vitest'

import type { AlertStep } from '@/api/http'
import type { Alert, AlertState } from '@/api/types'
import { foreseen, isPossible, may, waited } from '@/feed/life'

const STATES: AlertState[] = ['open', 'escalated', 'acknowledged', 'resolved', 'false_alarm', 'withdrawn']
const STEPS: AlertStep[] = ['acknowledge', 'resolve', 'false-alarm', 'reopen', 'assign', 'comment']
const alert = (more: Partial<Alert> = {}) => ({ id: 'a', state: 'open', owner: null, comments: 0, ...more }) as Alert

test('the table is the server’s', () => {
  const table = Object.fromEntries(
    STEPS.map((step) => [step, STATES.filter((state) => isPossible(alert({ state }), step))]),
  )
  expect(table).toEqual({
    acknowledge: ['open', 'escalated'],
    resolve: ['open', 'escalated', 'acknowledged'],
    'false-alarm': ['open', 'escalated', 'acknowledged'],
    reopen: ['resolved', 'false_alarm'],
    assign: ['open', 'escalated', 'acknowledged'],
    comment: STATES,
  })
})

describe('what is foreseen', () => {
  test('an alert without a wish, or with one that is not possible, is the same object', () => {
    const resolved = alert({ state: 'resolved' })
    expect(foreseen(resolved, undefined)).toBe(resolved)
    expect(foreseen(resolved, { step: 'acknowledge', by: 'li' })).toBe(resolved)
  })

  test('each step shows at once', () => {
    const after = (step: AlertStep, more: Partial<Alert> = {}, to?: string) => {
      const { state, owner, comments } = foreseen(alert(more), { step, by: 'li', ...(to ? { to } : {}) })
      return [state, owner, comments]
    }
    expect(after('acknowledge')).toEqual(['acknowledged', 'li', 0])
    expect(after('resolve', { state: 'acknowledged', owner: 'wang' })).toEqual(['resolved', 'wang', 0])
    expect(after('false-alarm', { state: 'escalated' })).toEqual(['false_alarm', 'li', 0])
    expect(after('reopen', { state: 'resolved', owner: 'wang' })).toEqual(['open', null, 0])
    expect(after('assign', {}, 'wang')).toEqual(['open', 'wang', 0])
    expect(after('assign', {}, 'li')).toEqual(['acknowledged', 'li', 0])
    expect(after('comment', { state: 'resolved' })).toEqual(['resolved', null, 1])
  })
})

test('who may: an inspector only after the call, an agent nothing', () => {
  const able = (role: Parameters<typeof may>[0], live: boolean) => STEPS.filter((step) => may(role, step, live))
  expect(able('supervisor', true)).toEqual(STEPS)
  expect(able('administrator', false)).toEqual(STEPS)
  expect(able('inspector', true)).toEqual([])
  expect(able('inspector', false)).toEqual(['resolve', 'false-alarm', 'comment'])
  expect(able('agent', false)).toEqual([])
  expect(able(undefined, false)).toEqual([])
})

test('the time waited counts up to the escalation', () => {
  const at = '2026-03-01T08:30:00.000Z'
  const began = Date.parse(at)
  const waits = { at, escalates_at: '2026-03-01T08:30:30.000Z' }
  expect(waited(waits, began + 12_000)).toEqual({ ms: 12_000, share: 0.4, left: 18_000 })
  expect(waited(waits, began + 40_000)).toEqual({ ms: 40_000, share: 1, left: 0 })
  expect(waited({ at, escalates_at: null }, began + 5000)).toEqual({ ms: 5000, share: null, left: null })
  expect(waited({ at: null }, began)).toEqual({ ms: 0, share: null, left: null })
  expect(waited(waits, began - 5000).ms).toBe(0)
})
