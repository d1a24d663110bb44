/*
 * Records that prove themselves: one block of two cells, and one log.
 *
 * Purpose: which records count after a crash. Rules 1 to 6 and 9 of model/README.md.
 * Checked after the crash, for each part: promises 1 (process crash), 2 (loss) and 3 (no zeros, no stale bytes).
 *
 * Bounds: WRITES writes by two concurrent writers, each of half a cell, of a cell, or of both cells; one fill; FLUSHES
 * flushes; one crash of either kind. The life starts from each state that a completed recovery leaves (checkpoint.pml
 * shows that recovery completes as one step). So more lives would not show more.
 *
 * The block has three parts: the halves of cell 0 (0 and 1), and all of cell 1 (2).
 * A part holds one value: HOLE, SOURCE, OLD, or the number of the write that wrote it.
 *   target[p]  what the kernel shows: the page cache
 *   onDisk[p]  the set of all values since the last sync of the target; a loss leaves one of them.
 *              This equals write-back by the kernel in any order, at any time. It includes torn cells.
 * The log is a list of frames with one record each. After a loss it ends anywhere from frame `synced` on, because
 * reading ends at the first missing frame. The sum of a cell is its content: no two contents have the same sum.
 *
 * Each `::` of a process is one step, and every step is atomic.
 * README.md lists the planted mistakes BUG_… and the shown limit LIMIT_….
 */
#ifndef WRITES
#define WRITES 3
#endif
#ifndef FLUSHES
#define FLUSHES 2
#endif

/* Values of a part, and sets of parts. */
#define HOLE 0                /* zeros, or stale bytes */
#define SOURCE 1
#define OLD 2                 /* a write of an earlier life */
#define FIRST_WRITE 3
#define CELL_0 3
#define CELL_1 4
#define BLOCK 7
#define CONTENT_OF_CELL_0(first, second) (8 * (first) + (second))

/* Types of records. */
#define WRITTEN 1
#define FILLED 2
#define MAYREAD 3
#define BARRIER 4
#define NO_SUM 255
#define MAX_FRAMES 12

/* Steps. */
#define IDLE 0
#define WRITE_CELL_0 1
#define WRITE_CELL_1 2
#define RECORD 3
#define WRITE_REST_OF_CELL_0 4
#define SYNC_TARGET 5
#define APPEND_BARRIER 6
#define SYNC_LOG 7
#define FILL_DONE 8

byte target[3];
byte onDisk[3];

/* The log: types, and per frame the covered parts (of a BARRIER: the sequence that it names) and the sums of cells. */
byte types[MAX_FRAMES];
byte covered[MAX_FRAMES];
byte sums[2 * MAX_FRAMES];    /* of frame f and cell c: sums[2 * f + c] */
byte sequence;                /* the number of frames, which is the next frame's sequence */
byte synced;                  /* frames below survive a loss */
byte recordEnd;               /* 1 + the last frame that is no BARRIER; 0: none */

/* The memory of the process. */
byte recorded;                /* parts that the target holds: the maps */
byte startParts;              /* parts that the checkpoint of the start has */
byte firmParts;               /* parts that are covered by firm records */
byte firm;                    /* frames below are covered by a durable barrier */
byte sumEnd[2];               /* of a cell: 1 + its last frame with a sum; 0: none */
byte pending[2];              /* of a cell: writes that are on the target and whose WRITTEN is not appended yet */
bool locked;                  /* the block's lock: held by a writer before its record, or by the fill */

byte writeStep[2];
byte writeId[2];
byte writeParts[2];
bool needsRecord[2];
byte writeSum0[2];
byte writeSum1[2];
byte fillStep;
byte flushStep;
byte through;                 /* the sequence that the flush remembered */

/* What the promises demand of each part: the value at the start, or the last write that … */
byte acked[3];                /* … was acknowledged */
byte ackedBefore[3];          /* … was acknowledged when the flush in progress began */
byte flushed[3];              /* … was acknowledged when the last completed flush began */
byte owed[3];                 /* … counts after the crash */
byte nextWrite = FIRST_WRITE;
byte flushes;
bool running;

/* Scratch of one step; 0 between steps. */
byte i, last, barrier, believed, sum0, sum1;

inline clear_scratch() {
  i = 0; last = 0; barrier = 0; believed = 0; sum0 = 0; sum1 = 0
}

inline put(part, value) {
  target[part] = value;
  onDisk[part] = onDisk[part] | (1 << value)
}

inline append(type, what, cell0, cell1) {
  types[sequence] = type; covered[sequence] = what; sums[2 * sequence] = cell0; sums[2 * sequence + 1] = cell1;
  sequence++;
  if :: type != BARRIER -> recordEnd = sequence :: else fi;
  if :: cell0 != NO_SUM -> sumEnd[0] = sequence :: else fi;
  if :: cell1 != NO_SUM -> sumEnd[1] = sequence :: else fi
}

/* Rule 4. A record in the making counts as a sum. */
#ifdef BUG_PENDING
#define HAS_UNFIRM_SUM(cell) (sumEnd[cell] > firm)
#define IN_THE_MAKING(parts) false
#else
#define HAS_UNFIRM_SUM(cell) (sumEnd[cell] > firm || pending[cell] > 0)
/* MAYREAD must follow that record in the log, so the second writer waits for the append. */
#define IN_THE_MAKING(parts) (((parts) & CELL_0) && pending[0] > 0 || ((parts) & CELL_1) && pending[1] > 0)
#endif

/* The sums of the touched cells as they will read after a write of `value` to `parts`. */
inline sums_to_come(parts, value) {
  sum0 = NO_SUM; sum1 = NO_SUM;
  if
  :: (parts) & CELL_0 ->
     sum0 = CONTENT_OF_CELL_0(((parts) & 1 -> value : target[0]), ((parts) & 2 -> value : target[1]))
  :: else
  fi;
  if :: (parts) & CELL_1 -> sum1 = value :: else fi
}

/* Rule 4: MAYREAD for those of the touched cells that have an unfirm sum. */
inline announce(parts, value) {
  sums_to_come(parts, value);
  if :: HAS_UNFIRM_SUM(0) :: else -> sum0 = NO_SUM fi;
  if :: HAS_UNFIRM_SUM(1) :: else -> sum1 = NO_SUM fi;
  if
  :: sum0 != NO_SUM || sum1 != NO_SUM ->
     append(MAYREAD, 0, sum0, sum1);
     printf("frame %d: MAYREAD of value %d\n", sequence - 1, value)
  :: else
  fi
}

/* Rule 5. */
#ifdef BUG_NO_RECORD
#define IS_FIRM (recorded == BLOCK)
#else
#define IS_FIRM (firmParts == BLOCK)
#endif

inline begin_write(parts) {
  locked = true;
  writeId[_pid] = nextWrite; nextWrite++;
  writeParts[_pid] = parts;
  needsRecord[_pid] = !IS_FIRM;
  printf("write %d of parts %d begins\n", writeId[_pid], parts);
#ifndef BUG_NO_MAYREAD
  if :: needsRecord[_pid] -> announce(parts, writeId[_pid]) :: else fi;
#endif
#ifdef BUG_ORDER
  sums_to_come(parts, writeId[_pid]);
  if :: needsRecord[_pid] -> append_written(parts, sum0, sum1) :: else fi;
#endif
  writeStep[_pid] = ((parts) & CELL_0 -> WRITE_CELL_0 : WRITE_CELL_1)
}

inline append_written(parts, cell0, cell1) {
  append(WRITTEN, parts, cell0, cell1);
  printf("frame %d: WRITTEN, write %d\n", sequence - 1, writeId[_pid]);
  recorded = recorded | parts
}

inline write_cell_0() {
  if :: writeParts[_pid] & 1 -> put(0, writeId[_pid]) :: else fi;
#ifdef LIMIT_TORN_CELL
  if
  :: (writeParts[_pid] & CELL_0) == CELL_0 -> writeStep[_pid] = WRITE_REST_OF_CELL_0
  :: else -> after_cell_0()
  fi
#else
  if :: writeParts[_pid] & 2 -> put(1, writeId[_pid]) :: else fi;
  after_cell_0()
#endif
}

inline after_cell_0() {
  printf("write %d is in cell 0\n", writeId[_pid]);
  if
  :: writeParts[_pid] & CELL_1 -> writeStep[_pid] = WRITE_CELL_1
  :: else -> end_target_write()
  fi
}

inline write_cell_1() {
  put(2, writeId[_pid]);
  printf("write %d is in cell 1\n", writeId[_pid]);
  end_target_write()
}

/* From here on other writers may enter, while this write is being recorded. */
inline end_target_write() {
  locked = false;
#ifdef BUG_ORDER
  needsRecord[_pid] = false;
#endif
  if
  :: needsRecord[_pid] ->
     writeStep[_pid] = RECORD;
     writeSum0[_pid] = NO_SUM; writeSum1[_pid] = NO_SUM;
     if
     :: writeParts[_pid] & CELL_0 -> writeSum0[_pid] = CONTENT_OF_CELL_0(target[0], target[1]); pending[0]++
     :: else
     fi;
     if
     :: writeParts[_pid] & CELL_1 -> writeSum1[_pid] = target[2]; pending[1]++
     :: else
     fi
  :: else -> acknowledge()
  fi
}

/* Rule 1. */
inline record_write() {
  append_written(writeParts[_pid], writeSum0[_pid], writeSum1[_pid]);
  if :: writeParts[_pid] & CELL_0 -> pending[0]-- :: else fi;
  if :: writeParts[_pid] & CELL_1 -> pending[1]-- :: else fi;
  acknowledge()
}

inline acknowledge() {
  printf("write %d is acknowledged\n", writeId[_pid]);
  for (i : 0 .. 2) {
    if
    :: (writeParts[_pid] & (1 << i)) && acked[i] < writeId[_pid] -> acked[i] = writeId[_pid]
    :: else
    fi
  }
  forget_write(_pid)
}

inline forget_write(writer) {
  writeStep[writer] = IDLE; writeId[writer] = 0; writeParts[writer] = 0; needsRecord[writer] = false;
  writeSum0[writer] = 0; writeSum1[writer] = 0
}

/* The second writer, which is like the first one, writes only while the first one does. */
#define MAY_WRITE(parts) (running && writeStep[_pid] == IDLE && nextWrite < FIRST_WRITE + WRITES && \
  (_pid == 0 || writeStep[0] != IDLE) && !locked && !IN_THE_MAKING(parts))

active [2] proctype writer() {
end:
  do
  :: d_step { MAY_WRITE(1) -> begin_write(1); clear_scratch() }
  :: d_step { MAY_WRITE(CELL_0) -> begin_write(CELL_0); clear_scratch() }
  :: d_step { MAY_WRITE(CELL_1) -> begin_write(CELL_1); clear_scratch() }
  :: d_step { MAY_WRITE(BLOCK) -> begin_write(BLOCK); clear_scratch() }
  :: d_step { writeStep[_pid] == WRITE_CELL_0 -> write_cell_0(); clear_scratch() }
#ifdef LIMIT_TORN_CELL
  :: d_step { writeStep[_pid] == WRITE_REST_OF_CELL_0 -> put(1, writeId[_pid]); after_cell_0(); clear_scratch() }
#endif
  :: d_step { writeStep[_pid] == WRITE_CELL_1 -> write_cell_1(); clear_scratch() }
  :: d_step { writeStep[_pid] == RECORD -> record_write(); clear_scratch() }
  od
}

/* A fill waits for writers, also while they are being recorded. It stores the source's bytes around recorded parts. */
#define MAY_FILL (running && fillStep == IDLE && recorded != BLOCK && !locked && \
  writeStep[0] == IDLE && writeStep[1] == IDLE)

inline begin_fill() {
  locked = true;
  printf("the fill begins\n");
  /* Only cell 0 can be recorded in part. */
#ifndef BUG_FILL_NO_MAYREAD
  if
  :: (recorded & CELL_0) != 0 && (recorded & CELL_0) != CELL_0 -> announce(CELL_0 & ~recorded, SOURCE)
  :: else
  fi;
#endif
  fillStep = WRITE_CELL_0
}

inline fill_cell_0() {
  if :: recorded & 1 :: else -> put(0, SOURCE) fi;
  if :: recorded & 2 :: else -> put(1, SOURCE) fi;
  fillStep = WRITE_CELL_1
}

inline fill_cell_1() {
  if :: recorded & CELL_1 :: else -> put(2, SOURCE) fi;
  printf("the fill has stored the source's bytes\n");
  locked = false;
  fillStep = RECORD
}

/* Rule 2. */
inline record_fill() {
  append(FILLED, BLOCK, NO_SUM, NO_SUM);
  printf("frame %d: FILLED\n", sequence - 1);
  recorded = BLOCK;
  fillStep = FILL_DONE
}

active proctype hydrator() {
end:
  do
  :: d_step { MAY_FILL -> begin_fill(); clear_scratch() }
  :: d_step { fillStep == WRITE_CELL_0 -> fill_cell_0() }
  :: d_step { fillStep == WRITE_CELL_1 -> fill_cell_1() }
  :: d_step { fillStep == RECORD -> record_fill() }
  od
}

/* Other flushes change nothing. */
#define IS_UNFLUSHED(part) (acked[part] != flushed[part] || onDisk[part] != 1 << target[part])
#define MAY_FLUSH (running && flushStep == IDLE && flushes < FLUSHES && \
  (recordEnd > firm || IS_UNFLUSHED(0) || IS_UNFLUSHED(1) || IS_UNFLUSHED(2) || \
  writeStep[0] != IDLE || writeStep[1] != IDLE || fillStep == WRITE_CELL_0 || fillStep == WRITE_CELL_1))

inline begin_flush() {
  flushes++;
  through = sequence;
  for (i : 0 .. 2) { ackedBefore[i] = acked[i] }
  printf("a flush begins, sequence %d\n", through);
  flushStep = SYNC_TARGET
}

inline sync_target() {
  for (i : 0 .. 2) { onDisk[i] = 1 << target[i] }
  printf("the flush has synced the target\n");
  flushStep = APPEND_BARRIER
}

inline append_barrier() {
#ifdef BUG_BARRIER
  through = sequence;
#endif
  if
  :: recordEnd > firm ->
     append(BARRIER, through, NO_SUM, NO_SUM);
     printf("frame %d: BARRIER %d\n", sequence - 1, through);
     flushStep = SYNC_LOG
  :: else -> complete_flush()
  fi
}

inline complete_flush() {
  for (i : 0 .. 2) { flushed[i] = ackedBefore[i]; ackedBefore[i] = 0 }
  printf("the flush is complete\n");
  through = 0;
  flushStep = IDLE
}

/* Rule 9: only the frames that the barrier names become firm. */
inline sync_log() {
  synced = sequence;
  if :: through > firm -> firm = through :: else fi;
#ifdef BUG_FIRM
  firm = sequence;
#endif
  for (i : 0 .. firm - 1) {
    if :: types[i] == WRITTEN || types[i] == FILLED -> firmParts = firmParts | covered[i] :: else fi
  }
  complete_flush()
}

active proctype flusher() {
end:
  do
  :: d_step { MAY_FLUSH -> begin_flush(); clear_scratch() }
  :: d_step { flushStep == SYNC_TARGET -> sync_target(); clear_scratch() }
  :: d_step { flushStep == APPEND_BARRIER -> append_barrier(); clear_scratch() }
  :: d_step { flushStep == SYNC_LOG -> sync_log(); clear_scratch() }
  od
}

inline lose_part(part) {
  if
  :: onDisk[part] & 1 -> target[part] = 0
  :: onDisk[part] & 2 -> target[part] = 1
  :: onDisk[part] & 4 -> target[part] = 2
  :: onDisk[part] & 8 -> target[part] = 3
  :: onDisk[part] & 16 -> target[part] = 4
  :: onDisk[part] & 32 -> target[part] = 5
  fi
}

inline lose_frames() {
  do
  :: sequence > synced -> sequence--
  :: break
  od
}

/* Rule 6: `believed` are the parts that firm records and proved records cover. */
inline judge() {
  believed = startParts;
  for (i : 0 .. sequence - 1) {
    if :: types[i] == BARRIER && covered[i] > barrier -> barrier = covered[i] :: else fi
  }
  for (i : 0 .. sequence - 1) {
    if
#ifdef BUG_BELIEVE_ALL
    :: types[i] == WRITTEN || types[i] == FILLED -> believed = believed | covered[i]
#else
    :: i < barrier && (types[i] == WRITTEN || types[i] == FILLED) -> believed = believed | covered[i]
#endif
#ifdef BUG_FILLED
    :: i >= barrier && types[i] == FILLED -> believed = believed | covered[i]
#endif
    :: else
    fi
  }
  judge_cell(0, CONTENT_OF_CELL_0(target[0], target[1]), CELL_0);
  judge_cell(1, target[2], CELL_1)
}

inline judge_cell(cell, content, parts) {
  last = 0;
  for (i : barrier .. sequence - 1) {
    if
#ifdef BUG_FIRST_MATCH
    :: sums[2 * i + cell] == content && last == 0 -> last = i + 1
#else
    :: sums[2 * i + cell] == content -> last = i + 1
#endif
    :: else
    fi
  }
  for (i : barrier .. last - 1) {
    if :: types[i] == WRITTEN -> believed = believed | (covered[i] & parts) :: else fi
  }
}

inline check_promises() {
  for (i : 0 .. 2) {
    last = ((believed & (1 << i)) -> target[i] : SOURCE);
    printf("part %d reads %d; owed: %d, or a write in flight\n", i, last, owed[i]);
    assert(last != HOLE);
    assert(last >= owed[i])
  }
}

/* One state for all ends keeps the number of states small. */
inline end_run() {
  running = false;
  locked = true;
  sequence = 0; synced = 0; recordEnd = 0; firm = 0; recorded = 0; firmParts = 0; startParts = 0; through = 0;
  nextWrite = 0; flushes = 0; fillStep = IDLE; flushStep = IDLE;
  for (i : 0 .. MAX_FRAMES - 1) { types[i] = 0; covered[i] = 0; sums[2 * i] = 0; sums[2 * i + 1] = 0 }
  for (i : 0 .. 1) { sumEnd[i] = 0; pending[i] = 0; forget_write(i) }
  for (i : 0 .. 2) { target[i] = 0; onDisk[i] = 0; acked[i] = 0; ackedBefore[i] = 0; flushed[i] = 0; owed[i] = 0 }
}

inline recover() {
  judge();
  printf("recovery: barrier %d, believes parts %d\n", barrier, believed);
  check_promises();
  end_run(); clear_scratch()
}

/* A state that a completed recovery leaves: all is synced, the log is empty, the checkpoint has what was believed. */
inline start_part(part) {
  if
  :: target[part] = HOLE; acked[part] = SOURCE
#ifndef EMPTY_START
  :: target[part] = SOURCE; acked[part] = SOURCE
  :: target[part] = OLD; acked[part] = OLD; startParts = startParts | (1 << part)
#endif
  fi;
  onDisk[part] = 1 << target[part]; flushed[part] = acked[part]
}

active proctype surroundings() {
  atomic {
    start_part(0); start_part(1); start_part(2);
    printf("the target holds %d %d %d, recorded parts: %d\n", target[0], target[1], target[2], startParts);
    recorded = startParts; firmParts = startParts; running = true
  }
  if
  :: d_step { running -> printf("the process crashes\n"); for (i : 0 .. 2) { owed[i] = acked[i] }; recover() }
  :: atomic { running ->
       printf("unsynced data is lost\n");
       d_step { for (i : 0 .. 2) { owed[i] = flushed[i] } }
       lose_part(0); lose_part(1); lose_part(2); lose_frames();
       d_step { recover() }
     }
  fi
}
