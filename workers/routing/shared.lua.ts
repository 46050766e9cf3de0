/**
 * What routing workers ask Redis, as scripts: each is one round trip and happens at once or not at all. Times are Redis' own, so that
 * workers with different clocks agree.
 */

/** How long a key is remembered, milliseconds (BeamLine, idempotency). */
export const KEY_TTL_MS = 3_600_000;
/** How long a key is held for a request that is under way, milliseconds: should its worker die, the next one may try. */
export const HELD_MS = 6_000;

/**
 * KEYS: since when Redis knows every key; the idempotency key; the policy's bucket; the session; the tenant's windows.
 * ARGV: digest ('' without a key), '1' when the journal was asked, tokens per second, burst (0 without a limit), session TTL in ms (0 without a
 * session), provider offered ('' for none), number of windows, seconds and most of each, then the providers a session may have.
 * Answers: conflict | replay, bare, enveloped | pending | unsure | limited, 'policy' or number of the window, seconds | go [, provider, kept].
 */
export const SETTLE = `
local time = redis.call('TIME')
local second = tonumber(time[1])
local now = second * 1000 + math.floor(tonumber(time[2]) / 1000)
local digest = ARGV[1]
if digest ~= '' then
  local known = redis.call('HMGET', KEYS[2], 'd', 'b', 'e')
  if known[1] then
    if known[1] ~= digest then return {'conflict'} end
    if known[2] then return {'replay', known[2], known[3]} end
    return {'pending'}
  end
  if ARGV[2] ~= '1' then
    local since = redis.call('GET', KEYS[1])
    if not since then
      since = string.format('%.0f', now)
      redis.call('SET', KEYS[1], since)
    end
    if now - tonumber(since) < ${KEY_TTL_MS} then return {'unsure'} end
  end
end
local burst, tokens = tonumber(ARGV[4]), 0
if burst > 0 then
  local held = redis.call('HMGET', KEYS[3], 't', 's')
  tokens = burst
  if held[1] then
    tokens = math.min(burst, tonumber(held[1]) + math.max(0, second - tonumber(held[2])) * tonumber(ARGV[3]))
  end
  if tokens < 1 then return {'limited', 'policy', '1'} end
end
local windows = tonumber(ARGV[7])
local used = {}
for i = 1, windows do
  local seconds = tonumber(ARGV[6 + 2 * i])
  local number = math.floor(second / seconds)
  local held = redis.call('HMGET', KEYS[4 + i], 'w', 'n')
  used[i] = 0
  if held[1] and tonumber(held[1]) == number then used[i] = tonumber(held[2]) end
  if used[i] >= tonumber(ARGV[7 + 2 * i]) then
    return {'limited', tostring(i), tostring((number + 1) * seconds - second)}
  end
end
if burst > 0 then
  redis.call('HSET', KEYS[3], 't', tokens - 1, 's', second)
  redis.call('EXPIRE', KEYS[3], math.ceil(burst / tonumber(ARGV[3])) + 2)
end
for i = 1, windows do
  local seconds = tonumber(ARGV[6 + 2 * i])
  redis.call('HSET', KEYS[4 + i], 'w', math.floor(second / seconds), 'n', used[i] + 1)
  redis.call('EXPIRE', KEYS[4 + i], seconds)
end
if digest ~= '' then
  redis.call('HSET', KEYS[2], 'd', digest)
  redis.call('PEXPIRE', KEYS[2], ${HELD_MS})
end
local ttl = tonumber(ARGV[5])
if ttl > 0 then
  local found = redis.call('GET', KEYS[4])
  if found then
    for i = 8 + 2 * windows, #ARGV do
      if ARGV[i] == found then
        redis.call('PEXPIRE', KEYS[4], ttl)
        return {'go', found, '1'}
      end
    end
  end
  if ARGV[6] ~= '' then
    redis.call('SET', KEYS[4], ARGV[6], 'PX', ttl)
    return {'go', ARGV[6], '0'}
  end
end
return {'go'}`;

/** KEYS: the idempotency key. ARGV: digest, bare, enveloped, milliseconds to keep it. */
export const REMEMBER = `
redis.call('HSET', KEYS[1], 'd', ARGV[1], 'b', ARGV[2], 'e', ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[4])`;

/** KEYS: the idempotency key. Lets go of a key that is held and was not answered. */
export const FORGET = `
if redis.call('HEXISTS', KEYS[1], 'b') == 0 then redis.call('DEL', KEYS[1]) end`;

/** KEYS: since. From now on Redis cannot be taken to know every key. */
export const DOUBT = `
local time = redis.call('TIME')
redis.call('SET', KEYS[1], string.format('%.0f', tonumber(time[1]) * 1000))`;
