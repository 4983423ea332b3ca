"""What happens to leases inside of Redis, each script in one step that nobody sees half done.

All keys of a site begin alike (``KEYS[1]``), with a hash tag, so that they lie in one slot of a Cluster; that is why a
script may make up the others from it. Times are milliseconds by Redis' clock.

* ``lease:<token>``: a hash; ``claims`` is a JSON list of holders, and ``expires`` alone says whether it lives.
* ``holder:<holder>``: a sorted set, the tokens of its leases by the time when they expire: those that live count.
* ``page:<client>:<holder>``: the token of a page's lease.
* ``gone:<token>``: that it was taken over or away, so that it is not taken for one that Redis lost.
* ``all``: a sorted set, every token by the time when it expires.

Every key expires an hour after it has lost its use.
"""

from __future__ import annotations

from typing import Final

from ..redis_server import Script

_HELPERS: Final = """
local base, all = KEYS[1], KEYS[1] .. 'all'
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local HOUR = 3600000
local function text(number) return string.format('%.0f', number) end
local function lease_key(token) return base .. 'lease:' .. token end
local function holder_key(holder) return base .. 'holder:' .. holder end
local function page_key(client, holder) return base .. 'page:' .. client .. ':' .. holder end
local function gone_key(token) return base .. 'gone:' .. token end
local function fields(token)
  local found = redis.call('HMGET', lease_key(token), 'claims', 'expires', 'client', 'session', 'topics')
  if not found[1] then return nil end
  local claims = cjson.decode(found[1])
  local page = found[3] ~= '' and page_key(found[3], claims[1])
  return {claims = claims, expires = tonumber(found[2]), page = page, session = found[4], topics = found[5]}
end
-- Let a lease live for so many milliseconds from now, with all its claims. Keys that are done already are in `kept`.
local function prolong(token, claims, page, lasts, kept)
  local expires = text(now + lasts)
  local function add(key)
    redis.call('ZADD', key, expires, token)
    if not kept[key] then redis.call('PEXPIRE', key, text(lasts + HOUR)) end
    kept[key] = true
  end
  redis.call('HSET', lease_key(token), 'expires', expires)
  redis.call('PEXPIRE', lease_key(token), text(lasts + HOUR))
  if page then redis.call('SET', page, token, 'PX', text(lasts + HOUR)) end
  for _, holder in ipairs(claims) do add(holder_key(holder)) end
  add(all)
end
local function remove(token)
  local lease = fields(token)
  if lease then
    for _, holder in ipairs(lease.claims) do redis.call('ZREM', holder_key(holder), token) end
    if lease.page and redis.call('GET', lease.page) == token then redis.call('DEL', lease.page) end
    redis.call('DEL', lease_key(token))
  end
  redis.call('ZREM', all, token)
end
local function take_away(token)
  remove(token)
  redis.call('SET', gone_key(token), '1', 'PX', text(HOUR))
end
"""

#: Take a lease, or one of the page's own over. Arguments: token, milliseconds, client, process, session, topics;
#: whether (1 or 0) it is one that was there and is missing; holder and limit of each claim. Returns -1, or the number
#: of the first claim that is full, or -2 where the lease is not to be had again.
ACQUIRE: Final = Script(
    _HELPERS
    + """
local token, lasts, client, again = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[7] == '1'
local page = client ~= '' and page_key(client, ARGV[8])
local mine = page and redis.call('GET', page)
if again then
  if mine and mine ~= token or redis.call('EXISTS', gone_key(token)) == 1 then return -2 end
  mine = token
end
local claims = {}
for index = 8, #ARGV, 2 do
  local key, limit = holder_key(ARGV[index]), tonumber(ARGV[index + 1])
  local score = mine and redis.call('ZSCORE', key, mine)
  local held = score and tonumber(score) > now
  if limit > 0 and not held and redis.call('ZCOUNT', key, '(' .. text(now), '+inf') >= limit then return #claims end
  claims[#claims + 1] = ARGV[index]
end
if mine and mine ~= token then take_away(mine) end
for _, holder in ipairs(claims) do
  local expired = redis.call('ZRANGEBYSCORE', holder_key(holder), '-inf', text(now), 'LIMIT', 0, 100)
  if #expired > 0 then redis.call('ZREM', holder_key(holder), unpack(expired)) end
end
redis.call('HSET', lease_key(token), 'claims', cjson.encode(claims), 'client', client, 'process', ARGV[4],
  'session', ARGV[5], 'topics', ARGV[6], 'opened', text(now))
prolong(token, claims, page, lasts, {})
return -1
"""
)

#: Prolong leases. Arguments: milliseconds, tokens. Returns which of the tokens are not alive.
RENEW: Final = Script(
    _HELPERS
    + """
local missing, kept = {}, {}
for index = 2, #ARGV do
  local lease = fields(ARGV[index])
  if lease and lease.expires > now then
    prolong(ARGV[index], lease.claims, lease.page, tonumber(ARGV[1]), kept)
  else
    missing[#missing + 1] = ARGV[index]
  end
end
return missing
"""
)

#: Give leases (the arguments) back.
RELEASE: Final = Script(_HELPERS + "for _, token in ipairs(ARGV) do remove(token) end")

#: Take leases away. Arguments: holder, session and topic that they must have where these are given; tokens. Returns how
#: many had them.
REVOKE: Final = Script(
    _HELPERS
    + """
local holder, session, topic, count = ARGV[1], ARGV[2], ARGV[3], 0
local function has(claims)
  for _, claim in ipairs(claims) do if claim == holder then return true end end
end
for index = 4, #ARGV do
  local lease = fields(ARGV[index])
  if lease and (holder == '' or has(lease.claims)) and (session == '' or lease.session == session)
    and (topic == '' or string.find(' ' .. lease.topics .. ' ', ' ' .. topic .. ' ', 1, true)) then
    take_away(ARGV[index])
    count = count + 1
  end
end
return count
"""
)

#: Tell of those of these leases (the arguments) that live: the token and some fields of each.
LIVE: Final = Script(
    _HELPERS
    + """
local found = {}
for _, token in ipairs(ARGV) do
  local lease = redis.call('HMGET', lease_key(token), 'claims', 'session', 'topics', 'process', 'opened', 'expires')
  if lease[6] and tonumber(lease[6]) > now then found[#found + 1] = {token, unpack(lease)} end
end
return found
"""
)

#: Remove what is left of expired leases, at most as many as the argument says; return how many.
SWEEP: Final = Script(
    _HELPERS
    + """
local expired = redis.call('ZRANGEBYSCORE', all, '-inf', text(now), 'LIMIT', 0, ARGV[1])
for _, token in ipairs(expired) do remove(token) end
return #expired
"""
)
