-- One line that the harness reads, behind wrk's own report.
function done(summary, latency, _)
  local errors = summary.errors
  io.write(string.format(
    "RESULT requests=%d microseconds=%d bytes=%d failures=%d socket_errors=%d p50=%d p99=%d\n",
    summary.requests, summary.duration, summary.bytes, errors.status,
    errors.connect + errors.read + errors.write + errors.timeout,
    latency:percentile(50), latency:percentile(99)))
end
