/** Light or dark: the system's choice, or the person's. */

import { computed, ref, watchEffect } from 'vue'

import { recall, remember } from '@/lib/memory'

export type ThemeChoice = 'system' | 'light' | 'dark'
const CHOICES: readonly ThemeChoice[] = ['system', 'light', 'dark']

const stored = recall('theme')
export const themeChoice = ref<ThemeChoice>(CHOICES.find((each) => each === stored) ?? 'system')

const systemDark = ref(false)
export const dark = computed(() =>
  themeChoice.value === 'system' ? systemDark.value : themeChoice.value === 'dark',
)

export function nextTheme(): void {
  const at = CHOICES.indexOf(themeChoice.value)
  themeChoice.value = CHOICES[(at + 1) % CHOICES.length] ?? 'system'
  remember('theme', themeChoice.value)
}

export function startTheme(): void {
  const query = window.matchMedia('(prefers-color-scheme: dark)')
  systemDark.value = query.matches
  query.addEventListener('change', (event) => (systemDark.value = event.matches))
  watchEffect(() => {
    document.documentElement.classList.toggle('dark', dark.value)
    document.documentElement.classList.toggle('light', !dark.value)
  })
}
