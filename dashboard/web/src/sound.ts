/**
 * What a new alert sounds like. Made by oscillators: no file to load, nothing to license.
 * Browsers keep audio locked until the first gesture on the page; until then alerts are silent.
 */

import { reactive, ref } from 'vue'

import type { Severity } from '@/api/types'
import { recall, remember } from '@/lib/memory'

const WEIGHT: Record<Severity, number> = { critical: 2, warning: 1, info: 0 }

export const muted = ref(recall('muted') === 'yes')
/** Severities that make no sound, in this browser. */
export const silent = reactive(new Set<Severity>(severitiesOf(recall('silent'))))
/** True until a gesture has allowed sound. */
export const locked = ref(true)

/** Frequency in hertz, start and length in seconds. Critical falls and repeats; a notice is one soft tick. */
const MELODIES: Record<Severity, { hertz: number; at: number; length: number; gain: number }[]> = {
  critical: [
    { hertz: 880, at: 0, length: 0.14, gain: 0.16 },
    { hertz: 622, at: 0.17, length: 0.2, gain: 0.16 },
    { hertz: 880, at: 0.45, length: 0.14, gain: 0.16 },
    { hertz: 622, at: 0.62, length: 0.24, gain: 0.16 },
  ],
  warning: [
    { hertz: 587, at: 0, length: 0.12, gain: 0.1 },
    { hertz: 698, at: 0.15, length: 0.18, gain: 0.1 },
  ],
  info: [{ hertz: 523, at: 0, length: 0.09, gain: 0.05 }],
}
/** Alerts that come together sound once, by the most severe. */
const PAUSE_MS = 1200

let context: AudioContext | null = null
let lastAt = -Infinity
let lastWeight = -1

function unlock(): void {
  context ??= new AudioContext()
  void context.resume().then(() => {
    locked.value = context?.state !== 'running'
    if (!locked.value) {
      for (const gesture of GESTURES) window.removeEventListener(gesture, unlock, true)
    }
  })
}
const GESTURES = ['pointerdown', 'keydown'] as const

export function startSound(): void {
  if (typeof AudioContext === 'undefined') return
  for (const gesture of GESTURES) window.addEventListener(gesture, unlock, true)
}

export function toggleMute(): void {
  muted.value = !muted.value
  remember('muted', muted.value ? 'yes' : 'no')
  if (!muted.value) play('info')
}

export function toggleSilent(severity: Severity): void {
  if (!silent.delete(severity)) silent.add(severity)
  remember('silent', [...silent].join(' '))
  if (!silent.has(severity)) play(severity)
}

/** Severities as they were kept: what is none of them is left out. */
export function severitiesOf(kept: string | null): Severity[] {
  return (kept ?? '').split(' ').filter((each): each is Severity => each in WEIGHT)
}

export function play(severity: Severity): void {
  if (muted.value || silent.has(severity) || context?.state !== 'running') return
  const now = performance.now()
  if (now - lastAt < PAUSE_MS && WEIGHT[severity] <= lastWeight) return
  lastAt = now
  lastWeight = WEIGHT[severity]
  const start = context.currentTime + 0.01
  for (const note of MELODIES[severity]) {
    const oscillator = context.createOscillator()
    const gain = context.createGain()
    oscillator.type = 'sine'
    oscillator.frequency.value = note.hertz
    // Ramps instead of steps: a step is heard as a click.
    gain.gain.setValueAtTime(0, start + note.at)
    gain.gain.linearRampToValueAtTime(note.gain, start + note.at + 0.015)
    gain.gain.linearRampToValueAtTime(0, start + note.at + note.length)
    oscillator.connect(gain).connect(context.destination)
    oscillator.start(start + note.at)
    oscillator.stop(start + note.at + note.length + 0.02)
  }
}
