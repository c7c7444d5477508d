"""What Redis executes in one step, in its Lua; the keys are told in `queueadmin.brokers.redis`."""

# KEYS: list, hash, barred. ARGV: channel, queue, id, data, id, data … The hash decides, so a
# repeated push of an id that is still there adds nothing. It wakes who waits itself, or a push
# would be two commands.
PUSH = """
local added = 0
local some_are_barred = redis.call('EXISTS', KEYS[3]) == 1
for i = 3, #ARGV, 2 do
  if not (some_are_barred and redis.call('ZSCORE', KEYS[3], ARGV[i]))
      and redis.call('HSETNX', KEYS[2], ARGV[i], ARGV[i + 1]) == 1 then
    redis.call('RPUSH', KEYS[1], ARGV[i])
    added = added + 1
  end
end
redis.call('PUBLISH', ARGV[1], ARGV[2])
return added
"""

# A full server refuses a script whose first write may need memory, and lets it go on after
# one that needs none. Fetches and heartbeats have to go on, or nobody makes room: each
# script of theirs begins with such a write.

# KEYS: high, normal, low, hash, acks, heartbeats, queues. ARGV: limit, worker, queue. Returns id,
# data, id, data …
# An id without data was purged or withdrawn; it is dropped and the next one taken. A worker that
# holds anything is among the heartbeats, also between a flush and its next beat, and the queue
# it holds something of is among the queues: who asks what a dead worker held need not walk
# through all keys of a server that others may use, too.
FETCH = """
local found = {}
local left = tonumber(ARGV[1])
local t = redis.call('TIME')
redis.call('ZREM', KEYS[6], '')
redis.call('ZADD', KEYS[6], 'NX', t[1] * 1000 + math.floor(t[2] / 1000), ARGV[2])
redis.call('SADD', KEYS[7], ARGV[3])
for p = 1, 3 do
  while left > 0 do
    local ids = redis.call('LPOP', KEYS[p], left)
    if not ids then break end
    local datas = redis.call('HMGET', KEYS[4], unpack(ids))
    for i = 1, #ids do
      if datas[i] then
        redis.call('SADD', KEYS[5], ids[i])
        found[#found + 1] = ids[i]
        found[#found + 1] = datas[i]
        left = left - 1
      end
    end
  end
end
return found
"""

# KEYS: high, normal, low, hash, acks, slots, grants, channel, heartbeats, queues. ARGV: limit,
# concurrency, starts per window, window in ms (each 0 for none), worker, queue, freed id, freed id …
# Slots and rate are asked and taken where the message is taken, so nothing has to be put
# back. `grants` is a log of the starts of the last window, by the server's clock: at most
# as many as allowed lie in any window. An actor starts some milliseconds after its grant;
# where a late one met the early ones of the next window, the provider behind it would see
# too many, so the window is a little longer. Returns wait in ms, id, data, id, data …
FETCH_LIMITED = """
local left = tonumber(ARGV[1])
local slots, starts, window = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
if #ARGV > 6 then redis.call('HDEL', KEYS[6], unpack(ARGV, 7)) end
local wait = 0
if slots > 0 then left = math.min(left, slots - redis.call('HLEN', KEYS[6])) end
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
redis.call('ZREM', KEYS[9], '')
redis.call('ZADD', KEYS[9], 'NX', math.floor(now / 1000), ARGV[5])
redis.call('SADD', KEYS[10], ARGV[6])
if starts > 0 then
  window = window + math.min(window * 0.05, 50)
  redis.call('ZREMRANGEBYSCORE', KEYS[7], '-inf', now - window * 1000)
  local free = starts - redis.call('ZCARD', KEYS[7])
  if free < left then left = free end
  if free <= 0 then
    local oldest = redis.call('ZRANGE', KEYS[7], 0, 0, 'WITHSCORES')
    wait = math.max(1, math.ceil((oldest[2] + window * 1000 - now) / 1000))
  end
end
local found = {0}
for p = 1, 3 do
  while left > 0 do
    local ids = redis.call('LPOP', KEYS[p], left)
    if not ids then break end
    local datas = redis.call('HMGET', KEYS[4], unpack(ids))
    for i = 1, #ids do
      if datas[i] then
        redis.call('SADD', KEYS[5], ids[i])
        if slots > 0 then redis.call('HSET', KEYS[6], ids[i], ARGV[5]) end
        if starts > 0 then
          redis.call('ZADD', KEYS[7], now, now .. ':' .. ids[i])
          redis.call('PEXPIRE', KEYS[7], math.ceil(window * 2))
        end
        found[#found + 1] = ids[i]
        found[#found + 1] = datas[i]
        left = left - 1
      end
    end
  end
end
found[1] = wait
if #ARGV > 6 and slots > 0 and wait == 0 and redis.call('HLEN', KEYS[6]) < slots then
  for p = 1, 3 do
    if redis.call('EXISTS', KEYS[p]) == 1 then
      redis.call('PUBLISH', KEYS[8], ARGV[6])
      break
    end
  end
end
return found
"""

# KEYS: hash, heartbeats. ARGV: id, ..., prefix and suffix of the acks' keys first. A message
# is free when it is there and in nobody's hands; its id stays in the list, where the fetch
# drops it: LREM would walk the list for each. Whoever fetches is among the heartbeats.
WITHDRAW = """
local workers = redis.call('ZRANGE', KEYS[2], 0, -1)
local taken = {}
for i = 3, #ARGV do
  local free = redis.call('HEXISTS', KEYS[1], ARGV[i]) == 1
  for _, worker in ipairs(workers) do
    if not free then break end
    if redis.call('SISMEMBER', ARGV[1] .. worker .. ARGV[2], ARGV[i]) == 1 then free = false end
  end
  if free then
    redis.call('HDEL', KEYS[1], ARGV[i])
    taken[#taken + 1] = ARGV[i]
  end
end
return taken
"""

# KEYS: high, normal, low, acks, slots. ARGV: id, priority, id, priority …, last to be first.
GIVE_BACK = """
for i = 1, #ARGV, 2 do
  redis.call('HDEL', KEYS[5], ARGV[i])
  if redis.call('SREM', KEYS[4], ARGV[i]) == 1 then
    redis.call('LPUSH', KEYS[tonumber(ARGV[i + 1]) + 1], ARGV[i])
  end
end
"""

_TIME = "local t = redis.call('TIME'); local now = t[1] * 1000 + math.floor(t[2] / 1000) "
# KEYS[1] is the mark in the scripts below. The server that has none has lost everything, or
# never had anything. The mark says since when it is there, by the server's clock.
_MARK = (
    _TIME
    + """
redis.call('ZREM', KEYS[2], '')
local mark = redis.call('GET', KEYS[1])
if not mark then
  mark = now .. ':' .. ARGV[1]
  redis.call('SET', KEYS[1], mark)
end
"""
)
# KEYS: mark, heartbeats. ARGV: random text, worker.
HEARTBEAT = _MARK + "redis.call('ZADD', KEYS[2], now, ARGV[2]); return mark"
# KEYS: mark, barred, messages. ARGV: random text, settling time in ms, 1 to bar, id, id …
# What is barred stays so for an hour: longer than any producer hesitates before its push.
MISSING = (
    _MARK
    + """
if now - tonumber(string.match(mark, '^%d+')) < tonumber(ARGV[2]) then return false end
local missing = {}
for i = 4, #ARGV do
  if redis.call('HEXISTS', KEYS[3], ARGV[i]) == 0 then
    missing[#missing + 1] = ARGV[i]
    if ARGV[3] == '1' then redis.call('ZADD', KEYS[2], now, ARGV[i]) end
  end
end
if ARGV[3] == '1' and #missing > 0 then
  redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now - 3600000)
  redis.call('PEXPIRE', KEYS[2], 3600000)
end
return missing
"""
)
# KEYS: hash, acks, slots, queues. ARGV: worker, queue, how many slots, id of each, id, data, id,
# data …
RESTORE = """
redis.call('SADD', KEYS[4], ARGV[2])
local slots = tonumber(ARGV[3])
for i = 4, 3 + slots do redis.call('HSET', KEYS[3], ARGV[i], ARGV[1]) end
for i = 4 + slots, #ARGV, 2 do
  if redis.call('HSETNX', KEYS[1], ARGV[i], ARGV[i + 1]) == 1 then
    redis.call('SADD', KEYS[2], ARGV[i])
  end
end
"""
DEAD = _TIME + "return redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[1])"
