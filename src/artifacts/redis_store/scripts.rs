//! What Redis runs: each change of an artifact and of the index beside it in one step. Every script can be
//! run twice, since an answer may be lost.

/// What the scripts have in common. `KEYS`: the artifact, the ends, the sizes, the sum. `ARGV`: the id,
/// now, and what artifacts' keys begin with; then each script's own.
pub(super) const COMMON: &str = "
    local item, ends, sizes, sum = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
    local id, now, start = ARGV[1], ARGV[2], ARGV[3]
    local function counts(...)
        return {redis.call('ZCARD', ends), tonumber(redis.call('GET', sum) or '0'), ...}
    end
    local function remove(gone)
        redis.call('DEL', start .. gone)
        local size = redis.call('HGET', sizes, gone)
        if size then
            redis.call('HDEL', sizes, gone)
            redis.call('DECRBY', sum, size)
        end
        return redis.call('ZREM', ends, gone)
    end
    local function sweep(most)
        local gone = redis.call('ZRANGEBYSCORE', ends, '-inf', now, 'LIMIT', 0, most)
        for _, one in ipairs(gone) do remove(one) end
        return #gone
    end
    local function fits(rows, bytes, max_rows, max_bytes)
        repeat
            local now_there = counts()
            if now_there[1] + rows <= tonumber(max_rows) and now_there[2] + bytes <= tonumber(max_bytes) then
                return true
            end
        until sweep(500) == 0
        return false
    end
    local function alive()
        local end_ms = redis.call('HGET', item, 'end_ms')
        if end_ms and tonumber(end_ms) > tonumber(now) then return true end
        remove(id)
        return false
    end
    local function put_off(end_ms, ttl_ms)
        redis.call('PEXPIRE', item, ttl_ms)
        redis.call('ZADD', ends, end_ms, id)
    end";
/// `ARGV`: now and the end as text, the end and the time to it in ms, the payload and its bytes, the caps.
/// An id that is there already is that of a call whose answer was lost.
pub(super) const INSERT: &str = "
    local now_text, end_text, end_ms, ttl_ms, payload, bytes = ARGV[4], ARGV[5], ARGV[6], ARGV[7], ARGV[8], ARGV[9]
    if redis.call('ZSCORE', ends, id) then return counts(1) end
    if not fits(1, tonumber(bytes), ARGV[10], ARGV[11]) then return counts(0) end
    redis.call('HSET', item, 'payload', payload, 'created', now_text, 'updated', now_text,
        'viewed', now_text, 'expires', end_text, 'end_ms', end_ms)
    put_off(end_ms, ttl_ms)
    redis.call('HSET', sizes, id, bytes)
    redis.call('INCRBY', sum, bytes)
    return counts(1)";
/// `ARGV`: as for INSERT up to the time. Where there is no memory for a new time, the old one stays.
/// A replica has no new times either, but others' artifacts: it is not asked again.
pub(super) const VIEW: &str = "
    local now_text, end_text, end_ms, ttl_ms = ARGV[4], ARGV[5], ARGV[6], ARGV[7]
    if not alive() then return counts(0) end
    local set = redis.pcall('HSET', item, 'viewed', now_text, 'expires', end_text, 'end_ms', end_ms)
    local refused = type(set) == 'table' and set.err
    if refused and string.find(refused, 'READONLY', 1, true) then return set end
    if not refused then put_off(end_ms, ttl_ms) end
    return counts(1, redis.call('HMGET', item, 'payload', 'created', 'updated', 'viewed', 'expires'))";
/// `ARGV`: as for INSERT.
pub(super) const REPLACE: &str = "
    local now_text, end_text, end_ms, ttl_ms, payload, bytes = ARGV[4], ARGV[5], ARGV[6], ARGV[7], ARGV[8], ARGV[9]
    if not alive() then return counts(0) end
    local more = tonumber(bytes) - tonumber(redis.call('HGET', sizes, id) or '0')
    if more > 0 and not fits(0, more, ARGV[10], ARGV[11]) then return counts(2) end
    redis.call('HSET', item, 'payload', payload, 'updated', now_text, 'expires', end_text, 'end_ms', end_ms)
    put_off(end_ms, ttl_ms)
    redis.call('HSET', sizes, id, bytes)
    redis.call('INCRBY', sum, more)
    return counts(1, redis.call('HMGET', item, 'payload', 'created', 'updated', 'viewed', 'expires'))";
pub(super) const DELETE: &str = "return counts(remove(id))";
/// `ARGV`: how many at most.
pub(super) const SWEEP: &str = "return counts(sweep(ARGV[4]))";
