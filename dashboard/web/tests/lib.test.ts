import { expect, test } from 'vitest'

import type { FloorAlert, FloorCall } from '@/api/types'
import { byRisk } from '@/feed/order'
import { latencyOf } from '@/lib/call'
import { curve, trendOf } from '@/lib/curve'
import { clockTime, median, seconds } from '@/lib/format'
import { placesOf, segments } from '@/lib/segments'

test('a marked text is cut into pieces that are the text again', () => {
  const pieces = segments('这个产品保本保收益', [{ start: 4, end: 6, value: 'a' }])
  expect(pieces).toEqual([
    { text: '这个产品', values: [] },
    { text: '保本', values: ['a'] },
    { text: '保收益', values: [] },
  ])
})

test('marks that overlap share the piece they have in common', () => {
  const pieces = segments('保本保收益', [
    { start: 0, end: 3, value: 'a' },
    { start: 2, end: 9, value: 'b' },
  ])
  expect(pieces.map((piece) => [piece.text, piece.values.join('')])).toEqual([['保本', 'a'], ['保', 'ab'], ['收益', 'b']])
})

test('spans count characters as people do, not UTF-16 halves', () => {
  expect(segments('𠮷人保本', [{ start: 2, end: 4, value: 1 }]).at(-1)).toEqual({ text: '保本', values: [1] })
})

test('evidence from another text is found by its words', () => {
  expect(placesOf({ text: '好。这个保本', spans: [[4, 6]], matched: ['保本'] }, '这个保本')).toEqual([[2, 4]])
  expect(placesOf({ text: '沉默', matched: [] }, '这个保本')).toEqual([])
})

test('times and figures are written short', () => {
  expect([0, 61_999, 3_661_000].map(clockTime)).toEqual(['00:00', '01:01', '1:01:01'])
  expect([840, 1320, 12_400].map((ms) => seconds(ms, 'en'))).toEqual(['0.84', '1.3', '12'])
  expect([median([]), median([3, 1, 2]), median([1, 2])]).toEqual([null, 2, 1.5])
})

const call = (id: string, critical: number, warning: number, started: string) =>
  ({
    call_id: id,
    alerts: { critical, warning, info: 0 },
    open: { critical, warning, info: 0 },
    started_at: started,
  }) as FloorCall

test('the riskiest call stands first, then the longest', () => {
  const calls = [call('new', 0, 0, '3'), call('old', 0, 0, '1'), call('warned', 0, 2, '4'), call('red', 1, 0, '5')]
  expect(calls.sort(byRisk).map((each) => each.call_id)).toEqual(['red', 'warned', 'old', 'new'])
})

test('what somebody has taken in hand stands behind what nobody has', () => {
  const taken = { ...call('taken', 2, 0, '1'), open: { critical: 0, warning: 0, info: 0 } }
  expect([call('calm', 0, 0, '0'), taken, call('warned', 0, 1, '2')].sort(byRisk).map((each) => each.call_id)).toEqual([
    'warned', 'taken', 'calm',
  ])
})

test('a curve runs from left to right, the most upset on top', () => {
  expect(curve([{ at: 0, level: 0 }, { at: 5, level: 10 }, { at: 10, level: 99 }], 40, 10)).toBe(
    'M0.0,10.0 L20.0,0.0 L40.0,0.0',
  )
  expect(curve([{ at: 0, level: 3 }], 40, 10)).toBe('')
  expect([0.4, 0.5, -0.5].map(trendOf)).toEqual(['same', 'worse', 'better'])
})

test('the latency of an alert that was read back is known until it was raised, or not at all', () => {
  const alert = (latency_ms: FloorAlert['latency_ms']) => ({ latency_ms }) as FloorAlert
  const steps = { vad: 400, queue: 10, asr: 200, rules: 1, delivery: null, total: null }
  expect(latencyOf(alert({ ...steps, total: 640 }))).toEqual({ ms: 640, delivered: true })
  expect(latencyOf(alert(steps))).toEqual({ ms: 611, delivered: false })
  expect(latencyOf(alert({ ...steps, asr: null }))).toBeNull()
})
