-- What wrk sends and what it tells, for scripts/bench: wrk ... -s wrk.lua URL -- METHOD BODY close|keep
function init(args)
  wrk.method = args[1]
  if tonumber(args[2]) > 0 then wrk.body = string.rep("y", tonumber(args[2])) end
  if args[3] == "close" then wrk.headers["Connection"] = "close" end
  wrk.headers["Host"] = "bench.test"
end

function done(summary, latency)
  local e = summary.errors
  io.write(string.format(
    '\n{"requests": %d, "seconds": %.6f, "bytes": %d, "p50": %d, "p99": %d, "errors": '
      .. '{"connect": %d, "read": %d, "write": %d, "status": %d, "timeout": %d}}\n',
    summary.requests, summary.duration / 1e6, summary.bytes, latency:percentile(50), latency:percentile(99),
    e.connect, e.read, e.write, e.status, e.timeout))
end
