import { describe, expect, test } from 'vitest'

import type { Alert, AlertState, FloorAlert, Published, Severity } from '@/api/types'
import { cardsOf, passes, rings, TOGETHER_MS, type AlertFilter } from '@/feed/cards'
import { apply, emptyFloor, MOST_ALERTS, MOST_OF_CALL } from '@/feed/reducer'

function alert(id: string, more: Partial<FloorAlert> & { ms?: number } = {}): FloorAlert {
  const { ms = 1000, ...rest } = more
  return {
    id,
    call_id: 'c1',
    rule_id: 'rule.one',
    rule_version: '1',
    name: { zh: '规则' },
    severity: 'warning',
    role: 'agent',
    media_start_ms: ms - 500,
    media_end_ms: ms,
    evidence: { text: '' },
    state: 'open',
    at: new Date(Date.UTC(2026, 2, 1, 8, 30) + ms).toISOString(),
    ...rest,
  }
}

const live = () => true
const ids = (alerts: readonly FloorAlert[]) => alerts.map((each) => each.id)

describe('one angry call is one card', () => {
  test('alerts of the same rule are one card, however far apart, the newest in front', () => {
    const { now } = cardsOf([alert('a', { ms: 1000 }), alert('b', { ms: 3_600_000 })], live)
    expect(now).toHaveLength(1)
    expect([now[0]?.id, now[0]?.front.id, now[0]?.alerts.length]).toEqual(['a', 'b', 2])
  })

  test('alerts of other rules join within some minutes, and stand alone after that', () => {
    const near = cardsOf([alert('a', { ms: 1000 }), alert('b', { ms: 1000 + TOGETHER_MS, rule_id: 'rule.two' })], live)
    expect(near.now.map((card) => ids(card.alerts))).toEqual([['b', 'a']])
    const far = cardsOf([alert('a', { ms: 1000 }), alert('b', { ms: 1001 + TOGETHER_MS, rule_id: 'rule.two' })], live)
    expect(far.now.map((card) => ids(card.alerts))).toEqual([['b'], ['a']])
  })

  test('a rule that fires again joins what lies between', () => {
    const far = 2 * TOGETHER_MS
    const { now } = cardsOf(
      [
        alert('a', { ms: 1000 }),
        alert('b', { ms: 1000 + far, rule_id: 'rule.two' }),
        alert('c', { ms: 1000 + 2 * far }),
        alert('d', { ms: 1000 + 4 * far, rule_id: 'rule.two' }),
      ],
      live,
    )
    expect(now.map((card) => ids(card.alerts))).toEqual([['d', 'c', 'b', 'a']])
  })

  test('calls are not mixed, and the order in which alerts come does not matter', () => {
    const alerts = [
      alert('a', { ms: 1000 }),
      alert('b', { ms: 9000, rule_id: 'rule.two' }),
      alert('c', { ms: 5000, call_id: 'c2' }),
      alert('d', { ms: 900_000 }),
    ]
    expect(cardsOf(alerts.toReversed(), live)).toEqual(cardsOf(alerts, live))
    expect(cardsOf(alerts, live).now.map((card) => [card.call_id, card.alerts.length])).toEqual([['c1', 3], ['c2', 1]])
  })

  test('in front stands the newest that waits; the card is as severe as the worst of those', () => {
    const { now } = cardsOf(
      [
        alert('judged', { ms: 9000, severity: 'critical', state: 'false_alarm' }),
        alert('info', { ms: 8000, severity: 'info' }),
        alert('critical', { ms: 2000, severity: 'critical', state: 'escalated' }),
      ],
      live,
    )
    expect(now[0]).toMatchObject({ waiting: 2, severity: 'critical', escalated: true, front: { id: 'info' } })
  })

  test('a card whose alerts are all judged, or whose call has ended, stands below', () => {
    const judged = [alert('a', { state: 'resolved' }), alert('b', { state: 'false_alarm', ms: 2000 })]
    expect(cardsOf(judged, live)).toMatchObject({ now: [], earlier: [{ waiting: 0 }] })
    expect(cardsOf([alert('a')], () => false).earlier).toHaveLength(1)
    expect(cardsOf([...judged, alert('c', { ms: 3000 })], live).now).toHaveLength(1)
  })

  test('what the rules have withdrawn is no alert', () => {
    expect(cardsOf([alert('a', { state: 'withdrawn' })], live)).toEqual({ now: [], earlier: [] })
  })

  test('cards stand by severity, what has escalated first, then the newest; acknowledging moves none', () => {
    const of = (id: string, severity: Severity, ms: number, state: AlertState) =>
      alert(id, { call_id: id, severity, ms, state })
    const cards = [
      of('warning', 'warning', 9000, 'open'),
      of('escalated', 'critical', 1000, 'escalated'),
      of('old', 'critical', 2000, 'open'),
      of('new', 'critical', 3000, 'open'),
    ]
    expect(cardsOf(cards, live).now.map((card) => card.id)).toEqual(['escalated', 'new', 'old', 'warning'])
    const taken = cards.map((each) => (each.id === 'new' ? { ...each, state: 'acknowledged' as const } : each))
    expect(cardsOf(taken, live).now.map((card) => card.id)).toEqual(['escalated', 'new', 'old', 'warning'])
  })
})

describe('a thousand alerts on one call', () => {
  const raised = (number: number, call_id: string): Published => ({
    cursor: number,
    type: 'alert.raised',
    call_id,
    at: alert('', { ms: number }).at ?? '',
    media_ms: number,
    alert: { ...alert(`a${number}`, { ms: number, call_id, rule_id: `rule.${number % 7}` }) } as Alert,
  })

  test('leave those of the others, and are one card', () => {
    const state = emptyFloor()
    for (let number = 1; number <= 20; number += 1) apply(state, raised(number, `other${number}`))
    for (let number = 21; number <= 1020; number += 1) apply(state, raised(number, 'flood'))
    expect(state.alerts.size).toBeLessThanOrEqual(MOST_ALERTS)
    const { now } = cardsOf(state.alerts.values(), live)
    expect(now).toHaveLength(21)
    const flood = now.find((card) => card.call_id === 'flood')
    expect(flood?.front.id).toBe('a1020')
    expect(flood?.alerts.length).toBeGreaterThanOrEqual(MOST_OF_CALL)
  })

  test('are grouped in no time', () => {
    const many = Array.from({ length: 5000 }, (_, n) => alert(`a${n}`, { ms: n * 100, rule_id: `rule.${n % 50}` }))
    const began = performance.now()
    expect(cardsOf(many, live).now[0]?.alerts).toHaveLength(5000)
    expect(performance.now() - began).toBeLessThan(500)
  })
})

describe('the filter', () => {
  const filter = (state: AlertFilter['state'], ...severities: Severity[]): AlertFilter => ({
    state,
    severities: new Set(severities.length ? severities : (['critical', 'warning', 'info'] as const)),
    me: 'li',
  })
  const states: AlertState[] = ['open', 'escalated', 'acknowledged', 'resolved', 'false_alarm']
  const passing = (wanted: AlertFilter, owner: string | null = null) =>
    states.filter((state) => passes(alert('a', { state, owner }), wanted))

  test('by state', () => {
    expect(passing(filter('all'))).toEqual(states)
    expect(passing(filter('waiting'))).toEqual(['open', 'escalated'])
    expect(passing(filter('judged'))).toEqual(['resolved', 'false_alarm'])
    expect(passing(filter('mine'))).toEqual([])
    expect(passing(filter('mine'), 'li')).toEqual(['open', 'escalated', 'acknowledged'])
    expect(passes(alert('a'), { ...filter('mine'), me: null })).toBe(false)
  })

  test('by severity', () => {
    expect(passing(filter('all', 'critical'))).toEqual([])
    expect(passing(filter('all', 'warning'))).toEqual(states)
  })
})

describe('sound', () => {
  test('a call that rang a moment ago is silent, unless it gets worse', () => {
    const first = alert('a', { ms: 0 })
    expect(rings(first, [first])).toBe(true)
    expect(rings(alert('b', { ms: 19_000 }), [first])).toBe(false)
    expect(rings(alert('b', { ms: 21_000 }), [first])).toBe(true)
    expect(rings(alert('b', { ms: 1000, severity: 'critical' }), [first])).toBe(true)
    expect(rings(alert('b', { ms: 1000, call_id: 'c2' }), [first])).toBe(true)
    expect(rings(alert('b', { ms: 1000 }), [{ ...first, state: 'withdrawn' }])).toBe(true)
  })
})
