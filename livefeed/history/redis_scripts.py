"""What happens to a topic inside of Redis, each script in one step that nobody sees half done.

A topic is a hash (``epoch``, ``seq``, ``floor``, ``trimmed``: the moment at which the event ``floor`` was numbered,
``server``: see :data:`APPEND`) and a stream. The id of an entry is
the event's number and the moment of its numbering: ``<seq>-<milliseconds by Redis' clock>``. So the number leads to the
entry, and no field has to be read to know its age. The fields of an entry always stand in the same order, which lets
Redis store their names once.
"""

from __future__ import annotations

from typing import Final

from ..redis_server import Script

_HELPERS: Final = """
local function milliseconds()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
local function text(number) return string.format('%.0f', number) end
local function seq_of(id) return tonumber(string.match(id, '^%d+')) end
local function moment_of(id) return tonumber(string.match(id, '%d+$')) end
local function state(key)
  local found = redis.call('HMGET', key, 'epoch', 'seq', 'floor', 'server')
  return found[1], tonumber(found[2] or 0), tonumber(found[3] or 0), found[4]
end
local function server_now()
  return string.match(redis.call('INFO', 'replication'), 'master_replid:(%w+)') or error('INFO names no master_replid')
end
-- The first number after `low`, and at most `high`, that was given at this moment or later.
local function first_since(key, low, high, moment)
  while high - low > 1 do
    local middle = math.floor((low + high) / 2)
    local entry = redis.call('XRANGE', key, text(middle), '+', 'COUNT', 1)[1]
    if entry and moment_of(entry[1]) >= moment then high = middle else low = middle end
  end
  return high
end
-- No cursor handed out before goes on: neither one of an epoch, nor "none yet", which ends with the first event.
local function begin_anew(key, events, seq, floor)
  local first = redis.call('XRANGE', events, '-', '1', 'COUNT', 1)[1]
  if first then
    redis.call('XTRIM', events, 'MINID', '2')
    redis.call('HSET', key, 'trimmed', text(moment_of(first[1])))
  end
  local last = redis.call('XREVRANGE', events, '+', '-', 'COUNT', 1)[1]
  return math.max(seq, 1, last and seq_of(last[1]) or 0), math.max(floor, 1)
end
"""

#: Append events to a topic and number them. Arguments: an epoch in case that one is needed; the moment after which it
#: is too late; the span (from, to) in which an earlier attempt may have taken effect, or 0 and 0; then four per event.
#:
#: What an earlier attempt has appended may be trimmed by now, so that nobody can find it: then all of it is appended in
#: a new epoch, and readers are told.
#:
#: ``server`` is the replication id (Redis' documentation on replication): one for each course that the data took, drawn
#: at every start of a master and at every promotion of a replica. Either may have lost writes.
APPEND: Final = Script(
    _HELPERS
    + """
-- The numbers of the events that were numbered in a span of time, by the events' own ids.
local function numbered(events, low, high, from, to)
  local known, last = {}, first_since(events, low, high + 1, from) - 1
  while true do
    local some = redis.call('XRANGE', events, text(last + 1), '+', 'COUNT', 64)
    for _, entry in ipairs(some) do
      if moment_of(entry[1]) > to then return known end
      last = seq_of(entry[1])
      known[entry[2][2]] = last
    end
    if #some < 64 then return known end
  end
end
local key, events = KEYS[1], KEYS[2]
local now = milliseconds()
local from, to = tonumber(ARGV[3]), tonumber(ARGV[4])
if now > tonumber(ARGV[2]) then return {'late'} end
if now <= to then return {'early'} end
local epoch, seq, floor, before = state(key)
local server = server_now()
local function findable() return tonumber(redis.call('HGET', key, 'trimmed') or 0) < from end
if not epoch then
  redis.call('DEL', events)
  epoch, seq, floor = ARGV[1], 0, 0
elseif before ~= server or to > 0 and not findable() then
  epoch = ARGV[1]
  seq, floor = begin_anew(key, events, seq, floor)
end
local known = to > 0 and findable() and numbered(events, floor, seq, from, to) or {}
local numbers = {}
for index = 5, #ARGV, 4 do
  local number = known[ARGV[index]]
  if not number then
    seq = seq + 1
    number = seq
    redis.call('XADD', events, text(seq) .. '-' .. text(now), 'id', ARGV[index], 'type', ARGV[index + 1],
      'data', ARGV[index + 2], 'at', ARGV[index + 3])
  end
  numbers[#numbers + 1] = number
end
redis.call('HSET', key, 'epoch', epoch, 'seq', text(seq), 'floor', text(floor), 'server', server)
return {'done', epoch, now, numbers}
"""
)

#: Note that topics (the arguments) moved just now, by Redis' clock in microseconds.
TOUCH: Final = Script(
    """
local time = redis.call('TIME')
for _, topic in ipairs(ARGV) do
  redis.call('ZADD', KEYS[1], string.format('%.0f', time[1] * 1000000 + time[2]), topic)
end
"""
)

#: Return the moment of this look, and which topics moved since the last one, or of late. Arguments: the moment of the
#: last look or 0, and by how much two of them overlap. Should the clock have gone back, its present time counts.
MOVED: Final = Script(
    """
local time = redis.call('TIME')
local now, since = time[1] * 1000000 + time[2], tonumber(ARGV[1])
if since == 0 or since > now then since = now end
local from = string.format('%.0f', since - ARGV[2])
return {now, redis.call('ZRANGEBYSCORE', KEYS[1], from, '+inf')}
"""
)

#: Return the time in milliseconds, of the server that holds a key.
CLOCK: Final = Script(_HELPERS + "return milliseconds()")

#: Return a page: the head, whether a limit ended it, its entries. Arguments: after which number, events, bytes of data.
#: Few entries are fetched at a time, so that those which don't fit cost little.
READ: Final = Script(
    _HELPERS
    + """
local function page(after, limit, max_bytes)
  local found, bytes = {}, 0
  while true do
    local some = redis.call('XRANGE', KEYS[2], text(after + 1), '+', 'COUNT', 16)
    for _, entry in ipairs(some) do
      if #found == limit or bytes > max_bytes then return 1, found end
      found[#found + 1] = entry
      bytes = bytes + #entry[2][6]
      after = seq_of(entry[1])
    end
    if #some < 16 then return 0, found end
  end
end
local epoch, seq, floor = state(KEYS[1])
if not epoch then return {} end
return {epoch, seq, floor, page(tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]))}
"""
)

#: Trim the oldest of a topic's events. Arguments: milliseconds and events that are kept (0: no limit), and how many may
#: go at once. Returns how many went, up to which number, and whether there may be more.
TRIM: Final = Script(
    _HELPERS
    + """
local key, events = KEYS[1], KEYS[2]
local age, keep = tonumber(ARGV[1]), tonumber(ARGV[2])
local epoch, seq, floor = state(key)
if floor == seq then return {0, floor, 0} end
local last = math.min(seq, floor + tonumber(ARGV[3]))
local cut = floor
if keep > 0 then cut = math.max(cut, seq - keep) end
if age > 0 then cut = math.max(cut, first_since(events, floor, last + 1, milliseconds() - age) - 1) end
cut = math.min(cut, last)
if cut == floor then return {0, floor, 0} end
local newest, gone = redis.call('XREVRANGE', events, text(cut), '-', 'COUNT', 1)[1], 0
if cut == seq then
  gone = redis.call('XLEN', events)
  redis.call('DEL', events)  -- an empty stream still takes kilobytes
else
  gone = redis.call('XTRIM', events, 'MINID', text(cut + 1))
end
redis.call('HSET', key, 'floor', text(cut), 'trimmed', newest and text(moment_of(newest[1])) or '0')
return {gone, cut, cut == last and last < seq and 1 or 0}
"""
)

#: Draw a new epoch. Arguments: the epoch, and whether (1 or 0) a topic without an event gets one too.
RENEW: Final = Script(
    _HELPERS
    + """
local key, events = KEYS[1], KEYS[2]
local epoch, seq, floor = state(key)
if not epoch and ARGV[2] == '0' then return 0 end
seq, floor = begin_anew(key, events, seq, floor)
redis.call('HSET', key, 'epoch', ARGV[1], 'seq', text(seq), 'floor', text(floor), 'server', server_now())
return 1
"""
)
