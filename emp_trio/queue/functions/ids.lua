-- Ids of jobs, and text that is put into messages. Ids come from anybody; keys and JSON are made of them.

local LONGEST_ID = 256  -- bytes; emp_trio/queue/ids.py has these rules, and more, for submitters
local SUFFIXES = {':progress', ':attempt:'}  -- of keys made of an id (queue protocol 0.3, 1.1, 1.8)

-- Well-formed sequences of more than one byte (RFC 3629, section 4).
local SEQUENCES = {'^[\194-\223][\128-\191]', '^\224[\160-\191][\128-\191]', '^[\225-\236\238\239][\128-\191][\128-\191]',
  '^\237[\128-\159][\128-\191]', '^\240[\144-\191][\128-\191][\128-\191]',
  '^[\241-\243][\128-\191][\128-\191][\128-\191]', '^\244[\128-\143][\128-\191][\128-\191]'}

-- The text with ? in place of each byte that is not UTF-8: readers of JSON demand it.
local function unicode(value)
  if string.find(value, '^[\1-\127]*$') then return value end  -- nearly always, and a third of the time
  local at = string.find(value, '[\128-\255]')
  if not at then return value end
  local parts, done = {}, 1
  while at do
    local last
    for _, sequence in ipairs(SEQUENCES) do
      local _, found = string.find(string.sub(value, at, at + 3), sequence)
      if found then last = at + found - 1 end
    end
    if not last then
      parts[#parts + 1] = string.sub(value, done, at - 1) .. '?'
      last, done = at, at + 1
    end
    at = string.find(value, '[\128-\255]', last + 1)
  end
  return done == 1 and value or table.concat(parts) .. string.sub(value, done)
end

-- Why a job of this id can't be run, or nil.
local function bad_id(id)
  if #id <= LONGEST_ID and string.find(id, '^[a-zA-Z0-9_-]+$') then return nil end  -- quicker than %w by far
  if id == '' then return 'the id is empty' end
  if #id > LONGEST_ID then return 'the id is longer than ' .. LONGEST_ID .. ' bytes' end
  if unicode(id) ~= id then return 'the id is not UTF-8 text' end
  for _, suffix in ipairs(SUFFIXES) do
    if string.find(id, suffix, 1, true) then
      return 'the id contains "' .. suffix .. '", so that its keys may be those of another job'
    end
  end
  return nil
end

-- An id as it is told to people.
local function shown(id)
  if #id > LONGEST_ID then id = string.sub(id, 1, LONGEST_ID) .. '...' end
  return unicode(id)
end
