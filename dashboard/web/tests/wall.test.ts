import { describe, expect, test } from 'vitest'

import type { FloorCall, Severity } from '@/api/types'
import {
  arrange, columnsOf, inView, isFiltered, keepPlaces, layout, moved, readChoice, sameGroups, scrollTo, step, writeChoice,
  type Choice, type Group,
} from '@/feed/wall'

const USUAL = readChoice({})

function call(id: string, more: Partial<FloorCall> & { team?: string; red?: number } = {}): FloorCall {
  const { team, red = 0, ...rest } = more
  const counts = { critical: red, warning: 0, info: 0 }
  return {
    call_id: id, agent: id, queue: '综合', state: 'live', started_at: id, ended_at: null, reason: null, duration_ms: 0,
    alerts: counts, open: counts, last_text: null, speaking: {}, gap_ms: 0, recording: false, moods: [], progress: null,
    team: team ?? null, ...rest,
  }
}

const names = (groups: readonly Group[]) => groups.map((group) => `${group.name}:${group.ids.join('')}`)
const arranged = (calls: FloorCall[], choice: Partial<Choice> = {}, words = '') =>
  names(arrange(calls, { ...USUAL, ...choice }, () => words, 'zh-CN'))

describe('the address', () => {
  test('what is chosen is read from it again', () => {
    const choice: Choice = {
      group: 'team', sort: 'agent', density: 'tiles', team: '一组', queue: '理财 & 贷款', agent: '8001',
      severities: ['critical', 'info'], text: '保本 100%', closed: ['一组', ''],
    }
    expect(readChoice(writeChoice(choice))).toEqual(choice)
    expect(isFiltered(choice)).toBe(true)
  })

  test('what is usual stands not in it', () => {
    expect(writeChoice(USUAL)).toEqual({})
    expect(isFiltered({ ...USUAL, text: '  ', group: 'team' })).toBe(false)
  })

  test('what nobody knows counts as not said', () => {
    const odd = { group: 'x', sort: ['risk', 'agent'], view: null, severity: ['critical', 'huge'], q: 'a'.repeat(101), team: '' }
    expect(readChoice(odd)).toEqual({ ...USUAL, severities: ['critical'] })
  })
})

describe('which calls', () => {
  const calls = [call('3', { team: '二组', red: 1 }), call('1', { team: '一组' }), call('2', { queue: null, red: 2 }), call('10')]

  test('the riskiest first, or the longest, or by agent as people count', () => {
    expect(arranged(calls)).toEqual([':23110'])
    expect(arranged(calls, { sort: 'duration' })).toEqual([':11023'])
    expect(arranged(calls, { sort: 'agent' })).toEqual([':12310'])
  })

  test('groups stand by name, and what has none stands last', () => {
    expect(arranged(calls, { group: 'team' })).toEqual(['二组:3', '一组:1', ':210'])
    expect(arranged(calls, { group: 'queue' })).toEqual(['综合:3110', ':2'])
  })

  test('only those asked for', () => {
    const severities: Severity[] = ['critical']
    expect(arranged(calls, { severities })).toEqual([':23'])
    expect(arranged(calls, { team: '一组' })).toEqual([':1'])
    expect(arranged(calls, { queue: '综合', agent: '10' })).toEqual([':10'])
    expect(arranged(calls, { text: ' 二组 ' })).toEqual([':3'])
    expect(arranged(calls, { text: '保本' }, '这个保本吗')).toEqual([':23110'])
    expect(arranged(calls, { text: '没有' })).toEqual([])
    expect(arranged([call('1', { state: 'ended' })])).toEqual([])
  })
})

describe('places that are kept', () => {
  const shown = [{ name: 'a', ids: ['1', '2', '3'] }, { name: 'b', ids: ['4'] }]
  const wanted = [{ name: 'b', ids: ['5', '4'] }, { name: 'a', ids: ['3', '1'] }, { name: 'c', ids: ['6'] }]

  test('calls stay, new ones come at the end of their group, new groups at the end', () => {
    expect(names(keepPlaces(shown, wanted, () => true))).toEqual(['a:123', 'b:45', 'c:6'])
  })

  test('a call that is forgotten leaves, and its group when it was the last', () => {
    expect(names(keepPlaces(shown, [], (id) => id !== '4' && id !== '2'))).toEqual(['a:13'])
  })

  test('a call that moved to another group is not there twice', () => {
    expect(names(keepPlaces(shown, [{ name: 'b', ids: ['4', '1'] }], () => true))).toEqual(['a:123', 'b:4'])
  })

  test('one that jumps to the top is one that moved, not all the others', () => {
    const ids = (text: string) => [{ name: '', ids: [...text] }]
    expect(moved(ids('abcdef'), ids('fabcde'))).toBe(1)
    expect(moved(ids('abcdef'), ids('abcdef'))).toBe(0)
    expect(moved(ids('abc'), ids('cba'))).toBe(2)
    expect(moved(ids('abc'), ids('ac'))).toBe(1)
  })

  test('groups are the same by their names and calls', () => {
    expect(sameGroups(shown, structuredClone(shown))).toBe(true)
    expect(sameGroups(shown, wanted)).toBe(false)
    expect(sameGroups(shown, [shown[0]!])).toBe(false)
  })
})

describe('where they stand', () => {
  const by = { columns: 2, height: 100, gap: 10, heading: 30 }
  const groups = [{ name: 'a', ids: ['1', '2', '3'] }, { name: 'b', ids: ['4', '5', '6'] }]
  const plan = layout(groups, true, new Set(), by)

  test('headings and lines below each other', () => {
    expect(plan.lines.map((line) => [line.top, line.ids.join('')])).toEqual([
      [0, ''], [30, '12'], [140, '3'], [250, ''], [280, '45'], [390, '6'],
    ])
    expect(plan.height).toBe(500)
  })

  test('a folded group is its heading, and without groups there is none', () => {
    expect(layout(groups, true, new Set(['a']), by).lines.map((line) => line.ids.join(''))).toEqual(['', '', '45', '6'])
    expect(layout(groups, false, new Set(['a']), by).lines.map((line) => line.ids.join(''))).toEqual(['12', '3', '45', '6'])
  })

  test('only lines in view are there, and the one that has the keyboard', () => {
    const seen = (from: number, to: number, also: string | null = null) =>
      inView(plan, from, to, also).map((line) => line.ids.join(''))
    expect(seen(0, 100)).toEqual(['', '12'])
    expect(seen(150, 260)).toEqual(['3', ''])
    expect(seen(0, 20, '6')).toEqual(['', '6'])
    expect(seen(9000, 9100)).toEqual([])
  })

  test('of ten thousand calls no more than fit are there', () => {
    const many = layout([{ name: '', ids: Array.from({ length: 10_000 }, (_, n) => `${n}`) }], false, new Set(), by)
    const seen = inView(many, 300_000, 300_800, null)
    expect(seen.length).toBeLessThan(11)
    expect(seen[0]?.top).toBeGreaterThan(299_800)
  })

  test('as many columns as fit, and always one', () => {
    expect([columnsOf(914, 258, 10), columnsOf(536, 258, 10), columnsOf(0, 258, 10)]).toEqual([3, 2, 1])
  })

  test('arrows go beside, and up and down within the column', () => {
    expect(step(plan, '1', 'ArrowRight')).toBe('2')
    expect(step(plan, '2', 'ArrowDown')).toBe('3')
    expect(step(plan, '3', 'ArrowDown')).toBe('4')
    expect(step(plan, '5', 'ArrowUp')).toBe('3')
    expect([step(plan, '1', 'ArrowLeft'), step(plan, '1', 'ArrowUp'), step(plan, '6', 'ArrowDown')]).toEqual(['1', '1', '6'])
    expect([step(plan, '3', 'Home'), step(plan, '3', 'End')]).toEqual(['1', '6'])
    expect([step(plan, null, 'ArrowDown'), step(plan, 'gone', 'ArrowUp')]).toEqual(['1', '1'])
    expect(step({ lines: [], height: 0 }, '1', 'ArrowDown')).toBeNull()
  })

  test('what has the keyboard is brought into view, and no further', () => {
    expect(scrollTo(plan, '1', 0, 200)).toBeNull()
    expect(scrollTo(plan, '6', 0, 200)).toBe(298)
    expect(scrollTo(plan, '1', 300, 200)).toBe(0)
    expect(scrollTo(plan, 'gone', 0, 200)).toBeNull()
  })
})
