//! What Redis does in one step. Each script keeps to the keys of one slot, and those that may find nothing
//! begin with a write that changes nothing (see the text of the module above).

use redis::Script;

/// All scripts, with their hashes.
pub(super) struct Scripts {
    pub(super) create: Script,
    pub(super) replace: Script,
    pub(super) touch: Script,
    pub(super) take: Script,
    pub(super) enter: Script,
    pub(super) list: Script,
    pub(super) lease: Script,
    pub(super) release: Script,
    pub(super) count: Script,
    pub(super) post: Script,
    pub(super) fetch_due: Script,
    pub(super) strike: Script,
    pub(super) count_errands: Script,
}

impl Scripts {
    pub(super) fn new() -> Self {
        Self {
            create: Script::new(
                "redis.call('HSET', KEYS[1], 'sealed', ARGV[1], 'version', ARGV[2], 'expires_at', ARGV[3],
                    'indexes', ARGV[5])
                return redis.call('PEXPIRE', KEYS[1], ARGV[4])",
            ),
            replace: of_record(
                "if is_damaged then return {'damaged'} end
                if tonumber(record[3]) <= tonumber(ARGV[1]) then return {'absent'} end
                if record[2] ~= ARGV[2] then return {'conflict'} end
                redis.call('HSET', KEYS[1], 'sealed', ARGV[3], 'version', ARGV[4])
                return {'written'}",
            ),
            touch: of_record(
                "if is_damaged then return {'damaged'} end
                if record[3] ~= ARGV[1] then return {'conflict'} end
                redis.call('HSET', KEYS[1], 'expires_at', ARGV[2])
                redis.call('PEXPIRE', KEYS[1], ARGV[3])
                return {'written', record[4] or ''}",
            ),
            take: of_record(
                "if not is_damaged and ARGV[1] ~= '' and ARGV[1] ~= record[2] then return {'conflict'} end
                if not is_damaged or ARGV[1] == '' then redis.call('DEL', KEYS[1]) end
                if is_damaged then return {'damaged', ARGV[1] == '' and record and record[4] or ''} end
                return {'taken', record[1], record[2], record[3], record[4] or ''}",
            ),
            enter: of_index(
                "if ARGV[4] == 'again' then redis.call('ZREM', KEYS[1], '') end
                local listed_until = redis.call('ZSCORE', KEYS[1], ARGV[2])
                if not listed_until or tonumber(listed_until) < tonumber(ARGV[3]) then
                    redis.call('ZADD', KEYS[1], ARGV[3], ARGV[2])
                end
                redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', ARGV[1])
                local latest = redis.call('ZREVRANGE', KEYS[1], 0, 0, 'WITHSCORES')[2]
                if latest then
                    local rest = math.min(tonumber(latest) - tonumber(ARGV[1]), 2 ^ 53)
                    redis.call('PEXPIRE', KEYS[1], string.format('%.0f', rest))
                end
                return {is_damaged and 'damaged' or 'entered'}",
            ),
            list: of_index(
                "redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', ARGV[1])
                local keys = redis.call('ZRANGE', KEYS[1], 0, -1)
                table.insert(keys, 1, is_damaged and 'damaged' or 'listed')
                return keys",
            ),
            lease: Script::new(
                // Redis stops no script for want of memory that has written, and without a lease no token is renewed.
                "redis.pcall('HDEL', KEYS[1], '')
                local owner = redis.call('GET', KEYS[1])
                if owner and owner ~= ARGV[1] then return 0 end
                redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
                return 1",
            ),
            release: Script::new(
                "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
                return redis.call('DEL', KEYS[1])",
            ),
            // As `Rate::step`, in microseconds. What is no number counts as nothing, and is written over.
            count: Script::new(
                "local time = redis.call('TIME')
                local now = time[1] * 1000000 + time[2]
                local interval, window = tonumber(ARGV[1]), tonumber(ARGV[2])
                local kept = redis.pcall('GET', KEYS[1])
                local arrival = type(kept) == 'string' and tonumber(kept) or now
                if not (arrival > now) then arrival = now end
                local ahead = math.min(arrival - now, window)
                local is_within = ahead + interval <= window
                if is_within then ahead = ahead + interval end
                if is_within or arrival > now + ahead then
                    redis.call('SET', KEYS[1], string.format('%.0f', now + ahead),
                        'PX', string.format('%.0f', math.ceil(ahead / 1000)))
                end
                return {is_within and 1 or 0, string.format('%.0f', ahead)}",
            ),
            post: Script::new(
                "redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
                return redis.call('ZADD', KEYS[1], ARGV[3], ARGV[1])",
            ),
            // Redis does nothing else while a script runs, so that it skips no more than so many.
            fetch_due: Script::new(
                "redis.call('ZREM', KEYS[1], '')
                for _ = 1, 1000 do
                    local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1],
                        'WITHSCORES', 'LIMIT', 0, 1)
                    if not due[1] then return {} end
                    local sealed = redis.call('HGET', KEYS[2], due[1])
                    if sealed then
                        redis.call('ZADD', KEYS[1], ARGV[2], due[1])
                        return {due[1], sealed, due[2]}
                    end
                    redis.call('ZREM', KEYS[1], due[1])
                end
                return {}",
            ),
            strike: Script::new(
                "redis.call('ZREM', KEYS[1], ARGV[1])
                return redis.call('HDEL', KEYS[2], ARGV[1])",
            ),
            count_errands: Script::new(
                "redis.call('HDEL', KEYS[1], '')
                return redis.call('HLEN', KEYS[1])",
            ),
        }
    }
}

/// Goes on with a whole record of KEYS[1]. Lua's `tonumber` would take `0x10` and `nan` as well.
fn of_record(then: &str) -> Script {
    Script::new(&format!(
        "local probe = redis.pcall('HDEL', KEYS[1], '')
        local is_hash = type(probe) == 'number'
        if not is_hash and string.sub(probe.err, 1, 9) ~= 'WRONGTYPE' then return probe end
        local record = is_hash and redis.call('HMGET', KEYS[1], 'sealed', 'version', 'expires_at', 'indexes')
        if record and not (record[1] or record[2] or record[3] or record[4]) then return {{'absent'}} end
        local function is_number(text)
            return text and #text < 20 and string.find(text, '^[1-9]%d*$')
        end
        local is_damaged = not (record and record[1] and is_number(record[2]) and is_number(record[3]))
        {then}"
    ))
}

/// Goes on with an index in KEYS[1], or with none: what is no index keeps no user from logging in.
fn of_index(then: &str) -> Script {
    Script::new(&format!(
        "local kind = redis.call('TYPE', KEYS[1]).ok
        local is_damaged = kind ~= 'zset' and kind ~= 'none'
        if is_damaged then redis.call('DEL', KEYS[1]) end
        {then}"
    ))
}
