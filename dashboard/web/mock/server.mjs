/**
 * A stand-in for the server, to work on the pages without one: three invented calls, over and over.
 *
 *   npm run mock            then, elsewhere: npm run dev        (or open the built page on the mock itself)
 *
 * PORT (8420), SPEED (1), CALLS (3: how many at once), QUIET=1 (no call at all).
 * Accounts: supervisor, inspector, administrator, agent; any password but "wrong".
 */

import { createReadStream, existsSync, statSync } from 'node:fs'
import { createServer } from 'node:http'
import { extname, join, normalize } from 'node:path'
import { fileURLToPath } from 'node:url'
import { WebSocketServer } from 'ws'

import { CALLS } from './calls.mjs'

const PORT = Number(process.env.PORT ?? 8420)
const SPEED = Number(process.env.SPEED ?? 1)
const AT_ONCE = process.env.QUIET ? 0 : Number(process.env.CALLS ?? 3)
const STATIC = fileURLToPath(new URL('../../static', import.meta.url))
const ROLES = { supervisor: '周主管', inspector: '吴质检', administrator: '管理员', agent: '王敏' }

const log = []
const calls = new Map()
const details = new Map()
const sockets = new Set()
let cursor = 0
let began = 0

function publish(type, call_id, media_ms, more, stored = true) {
  if (stored) cursor += 1
  const event = { cursor, type, call_id, at: new Date().toISOString(), media_ms, ...more }
  if (stored) log.push(event)
  const frame = JSON.stringify(event)
  for (const socket of sockets) socket.send(frame)
}

function play(script) {
  const serial = ++began
  const call_id = `mock-${String(serial).padStart(4, '0')}`
  const info = {
    call_id, protocol: 'mock', agent: script.agent, queue: script.queue, customer: script.customer,
    customer_level: script.level, direction: script.direction, attributes: { 工单: `WO-${20250300 + serial}` },
    channels: ['agent', 'customer'],
  }
  const call = {
    ...info, state: 'live', started_at: new Date().toISOString(), ended_at: null, reason: null, duration_ms: null,
    alerts: { critical: 0, warning: 0, info: 0 }, last_text: null, speaking: {}, gap_ms: 0, recording: false,
  }
  calls.set(call_id, call)
  details.set(call_id, { utterances: [], alerts: [], markers: [] })
  publish('call.started', call_id, 0, { call: info })
  const at = (s, act) => setTimeout(act, (s * 1000) / SPEED)
  const ms = (s) => Math.round(s * 1000)

  for (const [role, start, end, text, alerts = [], confidence = 0.91] of script.turns) {
    const utterance_id = `${call_id}:${role}:${ms(start)}`
    const speaking = { agent: false, customer: false, unknown: false }
    at(start, () => {
      call.speaking = { ...speaking, [role]: true }
      publish('call.updated', call_id, ms(start), { speaking: call.speaking }, false)
    })
    at(end, () => {
      call.speaking = speaking
      publish('call.updated', call_id, ms(end), { speaking }, false)
    })
    const letters = Array.from(text)
    for (let when = start + 1; when < end; when += 0.9) {
      const heard = letters.slice(0, Math.ceil(letters.length * ((when - start) / (end - start)))).join('')
      const utterance = { utterance_id, role, start_ms: ms(start), end_ms: ms(when), text: heard, confidence: 0.7 }
      at(when + 0.3, () => publish('utterance.partial', call_id, ms(when), { utterance }, false))
    }
    at(end + 0.8, () => {
      const utterance = { utterance_id, role, start_ms: ms(start), end_ms: ms(end), text, confidence }
      call.last_text = utterance
      call.duration_ms = ms(end)
      call.gap_ms = script.gap ?? 0
      const detail = details.get(call_id)
      detail.utterances.push(utterance)
      publish('utterance.final', call_id, ms(end), { utterance })
      for (const rule of alerts) raise(call, detail, utterance, rule)
    })
  }
  at(script.length, () => {
    Object.assign(call, {
      state: 'ended', ended_at: new Date().toISOString(), reason: serial % 7 === 0 ? 'interrupted' : script.reason,
      duration_ms: ms(script.length), speaking: {}, recording: true,
    })
    publish('call.ended', call_id, ms(script.length), { reason: call.reason })
    at(4, () => play(script))
  })
}

function raise(call, detail, utterance, rule) {
  const spans = rule.words.map((words) => {
    const start = Array.from(utterance.text.slice(0, utterance.text.indexOf(words))).length
    return [start, start + Array.from(words).length]
  })
  const share = spans.length ? spans.at(-1)[1] / Array.from(utterance.text).length : 1
  const end = Math.round(utterance.start_ms + share * (utterance.end_ms - utterance.start_ms))
  const id = `${call.call_id}-${rule.id}-${utterance.start_ms}`
  const shared = { call_id: call.call_id, rule_id: rule.id, severity: rule.severity, role: utterance.role }
  const times = { media_start_ms: Math.max(utterance.start_ms, end - 900), media_end_ms: end }
  const total = 700 + ((utterance.start_ms * 7) % 900)
  const alert = {
    id, ...shared, ...times, rule_version: '1+00000000', name: { zh: rule.zh, en: rule.en },
    evidence: {
      text: rule.how === 'timer' ? '12 秒无人说话' : utterance.text, matched: rule.words, spans: rule.how === 'timer' ? [] : spans,
      expected: rule.words, how: rule.how, confidence: 0.9,
    },
    utterance_id: utterance.utterance_id, state: 'open', owner: null,
    latency_ms: { vad: 420, queue: 30, asr: 210, rules: 1.2, delivery: 2.3, total },
  }
  const marker = { id: `m-${id}`, ...shared, ...times, label: alert.name, alert_id: id }
  call.alerts[rule.severity] += 1
  detail.alerts.push({ ...alert, at: new Date().toISOString() })
  detail.markers.push(marker)
  publish('alert.raised', call.call_id, end, { alert })
  publish('marker.added', call.call_id, times.media_start_ms, { marker })
}

/** A quiet tone while somebody speaks: something to hear and to seek in. WAV, 8 kHz. */
function audio(call_id) {
  const { utterances } = details.get(call_id)
  const rate = 8000
  const count = Math.round(((calls.get(call_id).duration_ms ?? 0) / 1000) * rate)
  const data = Buffer.alloc(44 + count * 2)
  data.write('RIFF', 0); data.writeUInt32LE(36 + count * 2, 4); data.write('WAVEfmt ', 8); data.writeUInt32LE(16, 16)
  data.writeUInt16LE(1, 20); data.writeUInt16LE(1, 22); data.writeUInt32LE(rate, 24); data.writeUInt32LE(rate * 2, 28)
  data.writeUInt16LE(2, 32); data.writeUInt16LE(16, 34); data.write('data', 36); data.writeUInt32LE(count * 2, 40)
  for (const { role, start_ms, end_ms } of utterances) {
    for (let n = start_ms * 8; n < Math.min(end_ms * 8, count); n += 1) {
      data.writeInt16LE(Math.round(2000 * Math.sin((n * 2 * Math.PI * (role === 'agent' ? 220 : 330)) / rate)), 44 + n * 2)
    }
  }
  return data
}

// ── HTTP ────────────────────────────────────────────────────────────────────────────────────────

const TYPES = { '.html': 'text/html; charset=utf-8', '.js': 'text/javascript', '.css': 'text/css', '.svg': 'image/svg+xml' }
const CSP = "default-src 'self'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; object-src 'none'; base-uri 'none'; frame-ancestors 'none'"

function send(response, status, body, headers = {}) {
  response.writeHead(status, { 'Content-Type': 'application/json', ...headers })
  response.end(body === undefined ? undefined : JSON.stringify(body))
}
const refuse = (response, status, code) => send(response, status, { error: { code, message: { zh: code, en: code } } })

function userOf(request) {
  const name = /duting_session=([a-z]+)/.exec(request.headers.cookie ?? '')?.[1]
  return name && ROLES[name] ? { username: name, name: ROLES[name], role: name } : null
}

async function bodyOf(request) {
  let text = ''
  for await (const chunk of request) text += chunk
  return JSON.parse(text || '{}')
}

async function handle(request, response) {
  const url = new URL(request.url, 'http://mock')
  const path = url.pathname
  if (!path.startsWith('/api/')) return page(path, response)
  if (path === '/api/session' && request.method === 'POST') {
    const { username, password } = await bodyOf(request)
    if (password === 'many') return refuse(response, 429, 'too_many_attempts')
    if (!ROLES[username] || password === 'wrong') return refuse(response, 401, 'wrong_credentials')
    const cookie = `duting_session=${username}; HttpOnly; SameSite=Strict; Path=/`
    return send(response, 200, { user: { username, name: ROLES[username], role: username } }, { 'Set-Cookie': cookie })
  }
  const user = userOf(request)
  if (!user) return refuse(response, 401, 'login_required')
  if (path === '/api/session') {
    if (request.method === 'GET') return send(response, 200, { user })
    return send(response, 204, undefined, { 'Set-Cookie': 'duting_session=; Max-Age=0; Path=/' })
  }
  if (user.role === 'agent') return refuse(response, 403, 'forbidden')
  const all = [...calls.values()].reverse()
  if (path === '/api/floor') {
    const alerts = [...details.values()].flatMap((each) => each.alerts).reverse().slice(0, 200)
      .map((alert) => ({ ...alert, agent: calls.get(alert.call_id).agent, queue: calls.get(alert.call_id).queue }))
    return send(response, 200, { cursor, calls: all.filter((call) => call.state === 'live'), alerts, health: { step: 0, name: 'all', calls: 3 } })
  }
  if (path === '/api/calls') {
    const state = url.searchParams.get('state') ?? 'all'
    const from = Number(url.searchParams.get('before') ?? 0)
    const limit = Number(url.searchParams.get('limit') ?? 50)
    const some = all.filter((call) => state === 'all' || call.state === state)
    return send(response, 200, { calls: some.slice(from, from + limit), next: from + limit < some.length ? String(from + limit) : null })
  }
  if (path === '/api/alerts/assignees') {
    return send(response, 200, { people: ['supervisor', 'administrator'].map((role) => ({ username: role, name: ROLES[role], role })) })
  }
  if (path === '/api/rules/precision') return send(response, 200, { rules: [] })
  if (path.startsWith('/api/alerts/')) return alertStep(path, user, await bodyOf(request), request, response)
  const [, , , id, part] = path.split('/')
  const call = calls.get(decodeURIComponent(id ?? ''))
  if (!call) return refuse(response, 404, 'unknown_call')
  if (part !== 'audio') return send(response, 200, { cursor, call, ...details.get(call.call_id) })
  if (!call.recording) return refuse(response, 404, 'no_recording')
  const data = audio(call.call_id)
  const [, from, to] = /bytes=(\d+)-(\d*)/.exec(request.headers.range ?? '') ?? []
  if (from === undefined) return response.writeHead(200, { 'Content-Type': 'audio/wav', 'Accept-Ranges': 'bytes', 'Content-Length': data.length }).end(data)
  const last = to ? Number(to) : data.length - 1
  response.writeHead(206, { 'Content-Type': 'audio/wav', 'Content-Range': `bytes ${from}-${last}/${data.length}`, 'Content-Length': last - from + 1 })
  response.end(data.subarray(Number(from), last + 1))
}

/** The life of an alert, without its rules: every step is taken. */
function alertStep(path, user, body, request, response) {
  const [, , , id, step] = path.split('/')
  const alert = [...details.values()].flatMap((each) => each.alerts).find((each) => each.id === decodeURIComponent(id))
  if (!alert) return refuse(response, 404, 'unknown_alert')
  alert.changes ??= []
  const { changes, ...shown } = alert
  if (request.method === 'GET') return send(response, 200, { alert: shown, changes })
  const states = { acknowledge: 'acknowledged', resolve: 'resolved', 'false-alarm': 'false_alarm', reopen: 'open', assign: 'open' }
  const before = { from_state: alert.state, from_owner: alert.owner }
  alert.state = states[step] ?? alert.state
  if (step === 'comment') alert.comments = (alert.comments ?? 0) + 1
  else alert.owner = step === 'reopen' ? null : (body.to ?? alert.owner ?? user.username)
  const change = {
    id: String(cursor + 1), action: step.replace('-', '_'), by: user.username, at: new Date().toISOString(), ...before,
    to_state: alert.state, to_owner: alert.owner, text: body.text ?? body.reason ?? null,
  }
  changes.push(change)
  const { changes: _, ...now } = alert
  publish('alert.updated', alert.call_id, alert.media_end_ms, { alert: now, change })
  send(response, 200, now)
}

function page(path, response) {
  let file = join(STATIC, normalize(path))
  if (!file.startsWith(STATIC) || !existsSync(file) || statSync(file).isDirectory()) file = join(STATIC, 'index.html')
  if (!existsSync(file)) return refuse(response, 404, 'not_built')
  response.writeHead(200, { 'Content-Type': TYPES[extname(file)] ?? 'application/octet-stream', 'Content-Security-Policy': CSP })
  createReadStream(file).pipe(response)
}

const server = createServer((request, response) => {
  handle(request, response).catch(() => refuse(response, 500, 'unexpected'))
})
const feed = new WebSocketServer({ server, path: '/api/events' })
feed.on('connection', (socket, request) => {
  if (!userOf(request)) return socket.close(4401)
  const from = Number(new URL(request.url, 'http://mock').searchParams.get('cursor') ?? cursor)
  socket.send(JSON.stringify({ type: 'hello', cursor, heartbeat_s: 15 }))
  if (from > cursor) socket.send(JSON.stringify({ type: 'resync' }))
  for (const event of log) if (event.cursor > from) socket.send(JSON.stringify(event))
  sockets.add(socket)
  const beat = setInterval(() => socket.send('{"type":"heartbeat"}'), 15_000)
  socket.on('close', () => {
    sockets.delete(socket)
    clearInterval(beat)
  })
})

const APART_MS = Math.min(3000, 30_000 / Math.max(1, AT_ONCE))
for (let index = 0; index < AT_ONCE; index += 1) setTimeout(() => play(CALLS[index % CALLS.length]), (index * APART_MS) / SPEED)
server.listen(PORT, '127.0.0.1', () => console.log(`mock on http://127.0.0.1:${PORT}`))
