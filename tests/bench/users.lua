-- wrk: one request a visitor of the list u0 … u<N-1>, in a shuffled order that differs by thread.
local n_users = tonumber(os.getenv("BENCH_USERS")) or 100000
local thread_seed = 0

function setup(thread)
    thread_seed = thread_seed + 1
    thread:set("seed", thread_seed)
end

function init(args)
    math.randomseed(seed)
    wrk.method = "POST"
    wrk.headers["Content-Type"] = "application/json"
end

function request()
    local user = math.random(0, n_users - 1)
    return wrk.format(nil, "/v1/recommendations", nil,
        string.format('{"scenario":"for_you","user_id":"u%d","limit":20}', user))
end

local bad = 0
local degraded = 0
function response(status, headers, body)
    if status ~= 200 then
        bad = bad + 1
    elseif not body:find('"degraded":[]', 1, true) then
        degraded = degraded + 1
    end
end

function done(summary, latency, requests)
    io.write(string.format("WRK requests=%d seconds=%.3f p50_us=%.0f p99_us=%.0f errors=%d\n",
        summary.requests, summary.duration / 1e6, latency:percentile(50), latency:percentile(99),
        summary.errors.status + summary.errors.connect + summary.errors.read +
        summary.errors.write + summary.errors.timeout))
end
