-- Sends whole requests from a file, in turn. Arguments: the file, and a word that no other run has.
-- In the file each request ends with NUL; SOH stands for a key that no other request has.
local heads, tails, last, run, sent = {}, {}, 0, "", 0

function init(arguments)
  local file = assert(io.open(arguments[1], "rb"))
  local text = file:read("*a")
  file:close()
  run = arguments[2]
  local from = 1
  while true do
    local stop = text:find("\0", from, true)
    if not stop then break end
    local request = text:sub(from, stop - 1)
    local key = request:find("\1", 1, true)
    last = last + 1
    heads[last] = key and request:sub(1, key - 1) or request
    tails[last] = key and request:sub(key + 1) or false
    from = stop + 1
  end
end

function request()
  sent = sent + 1
  local place = (sent - 1) % last + 1
  local tail = tails[place]
  if tail then
    return heads[place] .. run .. sent .. tail
  end
  return heads[place]
end

function done(summary, latency, _)
  local errors = summary.errors
  io.write(string.format(
    "RESULT requests=%d microseconds=%d bytes=%d failures=%d socket_errors=%d p50=%d p99=%d\n",
    summary.requests, summary.duration, summary.bytes, errors.status,
    errors.connect + errors.read + errors.write + errors.timeout,
    latency:percentile(50), latency:percentile(99)))
end
