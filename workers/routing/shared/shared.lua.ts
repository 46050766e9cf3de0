/**
 * What routing workers ask Redis, as scripts. One call carries the questions of many requests, each answered as if it had been asked alone. Times
 * are Redis' own, so that workers with different clocks agree.
 *
 * An idempotency key holds `h<digest>` while its first request is under way, then `a<digest><name of the words>` (words.redis.ts). Words are two
 * lines of JSON, which has no line break of its own.
 */

/** How long a key is remembered, milliseconds (BeamLine, idempotency). */
export const KEY_TTL_MS = 3_600_000;
/** How long a key is held for a request that is under way, milliseconds: should its worker die, the next one may try. */
export const HELD_MS = 6_000;
/** Characters of a digest: SHA-256 as base64url. */
export const DIGEST_LENGTH = 43;

export const BASE = "beamline:routing:";
/** There while Redis knows every key there is. */
export const COMPLETE = `${BASE}complete`;
/** Who is bringing the keys back. */
export const REBUILDING = `${BASE}rebuilding`;

/** How long a worker that rebuilds may be silent before another takes over, milliseconds. */
export const REBUILD_MS = 5_000;

/** Bits of a question. */
export const asks = { key: 1, limit: 2, windows: 4, session: 8 } as const;

/**
 * ARGV, per question: its bits; for a key: name, digest; for a limit: name, tokens per second, burst; for windows: how many, and name, seconds, most
 * of each; for a session: name, TTL in ms, provider offered ('' for none), providers allowed with line breaks around each.
 * Answers a text per question: `c`onflict, `p`ending, `u`nsure, `r<words>`, `l<window, 0 for the policy>:<seconds>`, `g`o, `g` without
 * a session, `k<provider>` kept, `n<provider>` new.
 */
export const SETTLE = `
local second
local function now()
  if not second then second = tonumber(redis.call('TIME')[1]) end
  return second
end
local complete
local answers = {}
local i, last = 1, #ARGV
while i <= last do
  local bits = tonumber(ARGV[i])
  i = i + 1
  local verdict, key, digest, claimed
  if bits % 2 == 1 then
    key, digest = ARGV[i], ARGV[i + 1]
    i = i + 2
    if complete == nil then complete = redis.call('EXISTS', '${COMPLETE}') == 1 end
    local old
    if complete and bits % 8 == 1 then
      old = redis.call('SET', key, 'h' .. digest, 'NX', 'GET', 'PX', ${HELD_MS})
      claimed = true
    else
      old = redis.call('GET', key)
    end
    if old then
      if string.sub(old, 2, ${DIGEST_LENGTH + 1}) ~= digest then verdict = 'c'
      elseif string.sub(old, 1, 1) == 'h' then verdict = 'p'
      else
        local words = redis.call('GET', '${BASE}words:' .. string.sub(old, ${DIGEST_LENGTH + 2}))
        if words then verdict = 'r' .. words else
          redis.call('DEL', '${COMPLETE}')
          complete = false
          verdict = 'u'
        end
      end
    elseif not complete then
      verdict = 'u'
    end
  end
  local bucket, tokens, perSecond, burst
  if bits % 4 >= 2 then
    bucket, perSecond, burst = ARGV[i], tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2])
    i = i + 3
    if not verdict then
      local held = redis.call('HMGET', bucket, 't', 's')
      tokens = burst
      if held[1] then
        tokens = math.min(burst, tonumber(held[1]) + math.max(0, now() - tonumber(held[2])) * perSecond)
      end
      if tokens < 1 then verdict = 'l0:1' end
    end
  end
  local windows, used
  if bits % 8 >= 4 then
    windows, used = {}, {}
    local count = tonumber(ARGV[i])
    i = i + 1
    for w = 1, count do
      windows[w] = {ARGV[i], tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2])}
      i = i + 3
      if not verdict then
        local number = math.floor(now() / windows[w][2])
        local held = redis.call('HMGET', windows[w][1], 'w', 'n')
        used[w] = 0
        if held[1] and tonumber(held[1]) == number then used[w] = tonumber(held[2]) end
        if used[w] >= windows[w][3] then verdict = 'l' .. w .. ':' .. ((number + 1) * windows[w][2] - now()) end
      end
    end
  end
  if not verdict then
    if bucket then
      redis.call('HSET', bucket, 't', tokens - 1, 's', now())
      redis.call('EXPIRE', bucket, math.ceil(burst / perSecond) + 2)
    end
    if windows then
      for w, window in ipairs(windows) do
        redis.call('HSET', window[1], 'w', math.floor(now() / window[2]), 'n', used[w] + 1)
        redis.call('EXPIRE', window[1], window[2])
      end
    end
    if key and not claimed then redis.call('SET', key, 'h' .. digest, 'PX', ${HELD_MS}) end
    verdict = 'g'
  end
  if bits >= 8 then
    local session, ttl, offer, allowed = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
    i = i + 4
    if verdict == 'g' then
      local found = redis.call('GETEX', session, 'PX', ttl)
      if found and string.find(allowed, '\\n' .. found .. '\\n', 1, true) then
        verdict = 'k' .. found
      elseif offer ~= '' then
        redis.call('SET', session, offer, 'PX', ttl)
        verdict = 'n' .. offer
      end
    end
  end
  answers[#answers + 1] = verdict
end
return answers`;

/** ARGV: name, value and milliseconds to keep it of each thing. */
export const WRITE = `
for i = 1, #ARGV, 3 do redis.call('SET', ARGV[i], ARGV[i + 1], 'PX', ARGV[i + 2]) end`;

/** ARGV: the name of a key. Lets go of one that is held. */
export const FORGET = `
local held = redis.call('GET', ARGV[1])
if held and string.sub(held, 1, 1) == 'h' then redis.call('DEL', ARGV[1]) end`;

/** ARGV: token, then name, value and milliseconds left of each key. Answers 0 when somebody else, or nobody, is rebuilding. */
export const RESTORE = `
if redis.call('GET', '${REBUILDING}') ~= ARGV[1] then return 0 end
redis.call('PEXPIRE', '${REBUILDING}', ${REBUILD_MS})
for i = 2, #ARGV, 3 do redis.call('SET', ARGV[i], ARGV[i + 1], 'NX', 'PX', ARGV[i + 2]) end
return 1`;

/** ARGV: token. Every key is back, unless they were lost again meanwhile. */
export const FINISH = `
if redis.call('GET', '${REBUILDING}') ~= ARGV[1] then return 0 end
redis.call('DEL', '${REBUILDING}')
redis.call('SET', '${COMPLETE}', '1')
return 1`;
