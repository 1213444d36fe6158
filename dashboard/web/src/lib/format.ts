/** How figures are written. Media time as m:ss, wall-clock time by the language's habit. */

export function clockTime(ms: number): string {
  const seconds = Math.max(0, Math.floor(ms / 1000))
  const h = Math.floor(seconds / 3600)
  const m = Math.floor((seconds % 3600) / 60)
  const s = String(seconds % 60).padStart(2, '0')
  return h > 0 ? `${h}:${String(m).padStart(2, '0')}:${s}` : `${String(m).padStart(2, '0')}:${s}`
}

/** Seconds with two figures that matter: 0.84, 1.3, 12. */
export function seconds(ms: number, language: string): string {
  const value = ms / 1000
  const digits = value < 0.995 ? 2 : value < 9.95 ? 1 : 0
  return new Intl.NumberFormat(language, { minimumFractionDigits: digits, maximumFractionDigits: digits }).format(value)
}

export function wallTime(iso: string | null | undefined, language: string): string {
  return written(iso, language, { hour: '2-digit', minute: '2-digit', second: '2-digit', hour12: false })
}

export function wallDateTime(iso: string | null | undefined, language: string): string {
  return written(iso, language, {
    year: 'numeric',
    month: '2-digit',
    day: '2-digit',
    hour: '2-digit',
    minute: '2-digit',
    second: '2-digit',
    hour12: false,
  })
}

function written(iso: string | null | undefined, language: string, options: Intl.DateTimeFormatOptions): string {
  const time = iso ? new Date(iso) : null
  if (!time || Number.isNaN(time.getTime())) return '–'
  return new Intl.DateTimeFormat(language, { ...options, hourCycle: 'h23', hour12: undefined }).format(time)
}

export function median(values: readonly number[]): number | null {
  if (values.length === 0) return null
  const sorted = [...values].sort((a, b) => a - b)
  const middle = Math.floor(sorted.length / 2)
  const upper = sorted[middle] ?? 0
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? 0) + upper) / 2
}

/** A step between ticks so that about `count` of them cover `ms`. */
export function tickStep(ms: number, count: number): number {
  const steps = [5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600].map((s) => s * 1000)
  return steps.find((step) => ms / step <= count) ?? 7200_000
}
