import { expect, test } from 'vitest'

import en from '@/i18n/en'
import zh from '@/i18n/zh'

const SOURCES = import.meta.glob<string>(['../src/**/*.vue', '../src/**/*.ts', '!../src/i18n/*.*.ts', '!../src/i18n/zh.ts', '!../src/i18n/en.ts'], {
  query: '?raw',
  import: 'default',
  eager: true,
})
const all = Object.values(SOURCES).join('\n')

function keys(words: object, path = ''): string[] {
  return Object.entries(words).flatMap(([key, value]) =>
    typeof value === 'string' ? [path + key] : keys(value as object, `${path}${key}.`),
  )
}

test('every word of the interface is shown somewhere', () => {
  // `alertState.${state}`: whatever begins so.
  const beginnings = [...all.matchAll(/`([a-zA-Z.]+\.)\$\{/g)].map((found) => found[1] ?? '')
  const unused = keys(zh).filter((key) => !all.includes(`'${key}'`) && !beginnings.some((begins) => key.startsWith(begins)))
  expect(unused).toEqual([])
})

test('both languages have the same words, with the same places for what is put in', () => {
  const places = (text: string) => [...text.matchAll(/\{(\w+)\}/g)].map((found) => found[1]).toSorted()
  const at = (words: object, key: string) =>
    key.split('.').reduce<unknown>((found, part) => (found as Record<string, unknown>)[part], words) as string
  expect(keys(en).toSorted()).toEqual(keys(zh).toSorted())
  for (const key of keys(zh)) expect(places(at(en, key)), key).toEqual(places(at(zh, key)))
})

test('no component has Chinese punctuation of its own: it would stand in English too', () => {
  const marked = Object.entries(SOURCES).filter(([name, text]) => name.endsWith('.vue') && /[、。「」（），：；]/.test(text))
  expect(marked.map(([name]) => name)).toEqual([])
})
