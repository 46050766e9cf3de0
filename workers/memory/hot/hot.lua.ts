/**
 * The scripts of hot state. Every one refuses with NOTREADY while the projection does not exist (its watermark is gone: Redis was flushed,
 * or is new), so that nothing is ever answered from an empty store as if it were the truth.
 *
 * Keys, all below `beamline:memory:` (the base, first argument):
 *   applied                        watermark: every record of the log up to this sequence is applied
 *   recent                         watermark of the stream of ordinary events, likewise
 *   builds                         set: buildings that have lost nothing so far; goes with whatever empties the rest
 *   tenants                        tenants seen, their tokens
 *   <tenant>:<kind>                hash: id to `<seq>\n<born>\n<group>\n<state as JSON>`; an empty state is a thing given up
 *   <tenant>:<kind>:of:<group>     set: ids of the things of a group (tasks of a goal, goals that are active, tool calls of a task)
 *   <tenant>:pattern:rank          sorted set: ids by success rate;  <tenant>:pattern:trigger  hash: id to `<uses>\n<trigger in lower case>`
 *   <tenant>:ring                  sorted set: ordinary events, the text of each (arrival, E1) by its arrival: the newest so many
 *   <tenant>:critical              sorted set: critical events likewise, all of them
 *   <tenant>:metrics               hash: key to `<arrival>\n{"value":…,"timestamp":…}`
 */

const ready = `
local base = ARGV[1]
if redis.call('EXISTS', base .. 'applied') == 0 then return redis.error_reply('NOTREADY no projection') end
`;

const loadBase = `
local base = ARGV[1]
`;

const applyBody = `
local applied = 0
local i = 2
while i + 9 <= #ARGV do
  local tenant, kind, id, seq, born = ARGV[i], ARGV[i+1], ARGV[i+2], ARGV[i+3], ARGV[i+4]
  local group, rate, uses, trigger, state = ARGV[i+5], ARGV[i+6], ARGV[i+7], ARGV[i+8], ARGV[i+9]
  i = i + 10
  local hash = base .. tenant .. ':' .. kind
  local old = redis.call('HGET', hash, id)
  local oldSeq, oldGroup = -1, ''
  if old then
    local s, g = string.match(old, '^(%d+)\\n%d+\\n([^\\n]*)\\n')
    oldSeq = tonumber(s)
    oldGroup = g
  end
  if tonumber(seq) > oldSeq then
    applied = applied + 1
    if oldGroup ~= '' and (oldGroup ~= group or state == '') then redis.call('SREM', hash .. ':of:' .. oldGroup, id) end
    if group ~= '' and state ~= '' then redis.call('SADD', hash .. ':of:' .. group, id) end
    redis.call('HSET', hash, id, seq .. '\\n' .. born .. '\\n' .. group .. '\\n' .. state)
    if kind == 'pattern' then
      if state == '' then
        redis.call('ZREM', hash .. ':rank', id)
        redis.call('HDEL', hash .. ':trigger', id)
      else
        redis.call('ZADD', hash .. ':rank', rate, id)
        redis.call('HSET', hash .. ':trigger', id, uses .. '\\n' .. trigger)
      end
    end
    redis.call('SADD', base .. 'tenants', tenant)
  end
end
return applied
`;

const pushBody = `
local max = tonumber(ARGV[2])
local i = 3
while ARGV[i] do
  local prefix = base .. ARGV[i]
  local events, critical, metrics = tonumber(ARGV[i+1]), tonumber(ARGV[i+2]), tonumber(ARGV[i+3])
  redis.call('SADD', base .. 'tenants', ARGV[i])
  i = i + 4
  if events > 0 then
    redis.call('ZADD', prefix .. ':ring', 'NX', unpack(ARGV, i, i + events * 2 - 1))
    redis.call('ZREMRANGEBYRANK', prefix .. ':ring', 0, -1 - max)
    i = i + events * 2
  end
  if critical > 0 then
    redis.call('ZADD', prefix .. ':critical', 'NX', unpack(ARGV, i, i + critical * 2 - 1))
    i = i + critical * 2
  end
  for n = i, i + metrics * 3 - 1, 3 do
    local old = redis.call('HGET', prefix .. ':metrics', ARGV[n])
    if not old or tonumber(string.match(old, '^(%d+)\\n')) <= tonumber(ARGV[n+1]) then
      redis.call('HSET', prefix .. ':metrics', ARGV[n], ARGV[n+1] .. '\\n' .. ARGV[n+2])
    end
  end
  i = i + metrics * 3
end
return 1
`;

/** Records, ten arguments each: tenant, kind, id, seq, born, group, rate, uses, trigger, state. Returns how many were new. */
export const APPLY = ready + applyBody;
/** The same while the projection is being built. */
export const LOAD = loadBase + applyBody;

/**
 * Events and metrics: the ring's size; per tenant its token, how many ordinary and critical events and metrics, then arrival and text of each
 * event, then key, arrival and entry of each metric. An event that is there keeps the place it has.
 */
export const PUSH = ready + pushBody;
export const LOAD_PUSH = loadBase + pushBody;

/** The things of pairs kind and id: tenant, then the pairs. */
export const PEEK = `${ready}
local out = {}
for i = 3, #ARGV, 2 do out[#out+1] = redis.call('HGET', base .. ARGV[2] .. ':' .. ARGV[i], ARGV[i+1]) end
return out
`;

/** All things of a group: tenant, kind, group. Pairs of id and value. */
export const GROUP = `${ready}
local hash = base .. ARGV[2] .. ':' .. ARGV[3]
local out = {}
for _, id in ipairs(redis.call('SMEMBERS', hash .. ':of:' .. ARGV[4])) do
  local value = redis.call('HGET', hash, id)
  if value then
    out[#out+1] = id
    out[#out+1] = value
  end
end
return out
`;

/** Newest events: tenant, index of the last one wanted (-1 for all). Two lists, ordinary and critical, each of text and arrival in turn. */
export const EVENTS = `${ready}
local ring, critical = base .. ARGV[2] .. ':ring', base .. ARGV[2] .. ':critical'
return {
  redis.call('ZREVRANGE', ring, 0, ARGV[3], 'WITHSCORES'),
  redis.call('ZREVRANGE', critical, 0, ARGV[3], 'WITHSCORES')
}
`;

/** The same of events whose text contains every one of the pieces given: tenant, count (-1 all), pieces. At most so many of each list. */
export const FIND_EVENTS = `${ready}
local count = tonumber(ARGV[3])
local function find(ring)
  local out = {}
  for start = 0, math.huge, 200 do
    local page = redis.call('ZREVRANGE', ring, start, start + 199, 'WITHSCORES')
    for n = 1, #page, 2 do
      local wanted = true
      for piece = 4, #ARGV do wanted = wanted and string.find(page[n], ARGV[piece], 1, true) end
      if wanted then
        out[#out+1] = page[n]
        out[#out+1] = page[n+1]
        if #out == count * 2 then return out end
      end
    end
    if #page < 400 then return out end
  end
end
return {find(base .. ARGV[2] .. ':ring'), find(base .. ARGV[2] .. ':critical')}
`;

/** Values of metrics: tenant, keys. */
export const METRICS = `${ready}
local out = {}
for i = 3, #ARGV do out[#out+1] = redis.call('HGET', base .. ARGV[2] .. ':metrics', ARGV[i]) end
return out
`;

/**
 * The best pattern: tenant, query in lower case, least rate. Walks from the best rate down and stops at the first rate that has a match;
 * among equals the most used one wins, then the smallest id.
 */
export const PATTERN = `${ready}
local hash = base .. ARGV[2] .. ':pattern'
local query, least = ARGV[3], tonumber(ARGV[4])
local best, bestRate, bestUses = nil, nil, nil
local start = 0
while true do
  local page = redis.call('ZREVRANGE', hash .. ':rank', start, start + 99, 'WITHSCORES')
  if #page == 0 then break end
  for i = 1, #page, 2 do
    local id, rate = page[i], tonumber(page[i+1])
    if rate < least or (bestRate and rate < bestRate) then
      start = -1
      break
    end
    local uses, at = string.match(redis.call('HGET', hash .. ':trigger', id) or '0\\n', '^(%-?%d+)\\n()')
    local trigger = string.sub(redis.call('HGET', hash .. ':trigger', id) or '0\\n', at)
    uses = tonumber(uses)
    if string.find(trigger, query, 1, true) and (not best or uses > bestUses or (uses == bestUses and id < best)) then
      best, bestRate, bestUses = id, rate, uses
    end
  end
  if start < 0 then break end
  start = start + 100
end
if not best then return false end
return redis.call('HGET', hash, best)
`;

/** Takes things out of hot state without a trace: tenant, kind, then pairs of id and the sequence it must still have. */
export const DROP = `${ready}
local hash = base .. ARGV[2] .. ':' .. ARGV[3]
local dropped = 0
for i = 4, #ARGV, 2 do
  local old = redis.call('HGET', hash, ARGV[i])
  if old then
    local s, g = string.match(old, '^(%d+)\\n%d+\\n([^\\n]*)\\n')
    if s == ARGV[i+1] then
      redis.call('HDEL', hash, ARGV[i])
      if g ~= '' then redis.call('SREM', hash .. ':of:' .. g, ARGV[i]) end
      dropped = dropped + 1
    end
  end
end
return dropped
`;

/**
 * Ends a building and makes the projection visible: its name, then both watermarks. 0 when what it wrote was emptied meanwhile and nobody has
 * built it since: it has to be done again.
 */
export const FINISH = `
local base = ARGV[1]
if redis.call('SISMEMBER', base .. 'builds', ARGV[2]) == 0 then return redis.call('EXISTS', base .. 'applied') end
redis.call('DEL', base .. 'builds')
redis.call('SET', base .. 'recent', ARGV[4])
redis.call('SET', base .. 'applied', ARGV[3])
return 1
`;

/**
 * Forgets events that arrived before a moment: tenant, that moment for ordinary ones, that for critical ones (microseconds). At most 1000 of
 * each per call; returns how many it dealt with.
 */
export const FORGET_EVENTS = `${ready}
local done = 0
for n, ring in ipairs({base .. ARGV[2] .. ':ring', base .. ARGV[2] .. ':critical'}) do
  local old = math.min(1000, redis.call('ZCOUNT', ring, '-inf', '(' .. ARGV[2 + n]))
  if old > 0 then done = done + redis.call('ZREMRANGEBYRANK', ring, 0, old - 1) end
end
return done
`;
