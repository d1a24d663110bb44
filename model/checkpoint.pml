/*
 * A checkpoint, the switch of logs, and recovery: a device of one cell.
 *
 * Purpose: that both logs together decide, that a flush during a checkpoint keeps its promise without waiting, and that
 * recovery may be interrupted anywhere. Rules 1, 2, 4 to 9 of model/README.md.
 * Checked after each crash: promises 1 (process crash), 2 (loss), 3 (no zeros, no stale bytes) and 4 (recovery is
 * interrupted). No crash may look like damage.
 *
 * Bounds: WRITES writes by one writer, one fill, CHECKPOINTS checkpoints and FLUSHES flushes before the first crash;
 * CRASHES crashes of either kind, also during recovery and after it; one lost write-back.
 * The life starts from each state that a completed recovery leaves. So more lives would not show more.
 *
 *   target    what the kernel shows of the cell: the page cache
 *   onDisk    the set of all contents since the last sync of the target; a loss leaves one of them
 *   isClean   the write-back of the target failed: the disk has another content, and a sync does not write the page
 * Files have two slots. Epoch E uses slot E % 2. A loss cuts a log anywhere from frame `synced` on, and may drop
 * headers that were not synced. The old content of a slot that is being overwritten counts as gone.
 * The sum of a cell is its content.
 *
 * Each `::` of a process is one step, and every step is atomic. A crash sets all `…Step` variables to IDLE.
 * README.md lists the planted mistakes BUG_… and the shown limit LIMIT_….
 */
#ifndef WRITES
#define WRITES 2
#endif
#ifndef FLUSHES
#define FLUSHES 2
#endif
#ifndef CHECKPOINTS
#define CHECKPOINTS 1
#endif
#ifndef CRASHES
#define CRASHES 3
#endif

/* Contents of the cell. */
#define HOLE 0                /* zeros, or stale bytes */
#define SOURCE 1
#define OLD 2                 /* a write of an earlier life */
#define FIRST_WRITE 3

/* Types of records. */
#define WRITTEN 1             /* argument: the sum */
#define FILLED 2
#define MAYREAD 3             /* argument: the sum */
#define BARRIER 4             /* argument: a sequence */
#define CONTINUED 5
#define BASED 6
#define MAX_FRAMES 12

#define SLOT(epoch) ((epoch) & 1)
#define FRAME(slot, index) (MAX_FRAMES * (slot) + (index))
/* A place in both logs: the order of rule 6. */
#define POSITION(epoch, index) (16 * (epoch) + (index))

/* Steps. */
#define IDLE 0
#define WRITE_TARGET 1
#define RECORD 2
#define SYNC_TARGET 3
#define APPEND_BARRIER 4
#define SYNC_OLD_LOG 5
#define SYNC_LOG 6
#define SYNC_NEW_LOG 7
#define SWITCH 8
#define WRITE_BODY 9
#define SYNC_BODY 10
#define WRITE_HEADER 11
#define SYNC_HEADER 12
#define APPEND_BASED 13
#define SYNC_BASED 14
#define SYNC_CHECKPOINT 15
#define WRITE_AGAIN 16
#define STANDALONE_BODY 17
#define STANDALONE_HEADER 18
#define SYNC_STANDALONE 19
#define CREATE_LOG 20

byte target;
byte onDisk;
bool isClean;

/* Logs: epoch 0 means that there is no valid header. */
byte logEpoch[2];
bool logDurable[2];           /* the header survives a loss */
byte sequence[2];
byte synced[2];
byte types[2 * MAX_FRAMES];
byte arguments[2 * MAX_FRAMES];

/* Checkpoints: epoch 0 means that there is no valid header. */
byte checkpointEpoch[2];
byte checkpointOnDisk[2];     /* as above, but what survives a loss */
bool checkpointRecorded[2];   /* the map: the target holds the cell */
bool checkpointStandalone[2];

/* The memory of the process. */
byte epoch;                   /* of the current log */
bool recorded;                /* the target holds the cell: the map */
byte recordedAt;              /* position of the first record of that; 0: the checkpoint of the life's start */
byte lastRecord;              /* position of the last WRITTEN, FILLED or MAYREAD; 0: none */
byte lastSum;                 /* position of the last sum; 0: none */
byte firm;                    /* records at lower positions are firm */
bool baseMissing;             /* the checkpoint of the current log is not durable: the older log counts too */

byte writeStep;
byte writeId;
bool needsRecord;
byte fillStep;
byte flushStep;
byte flushEpoch;              /* the log of the flush in progress */
byte through;                 /* the sequence that it remembered */
bool hasBarrier;             /* its barrier is in that log */
byte checkpointStep;
bool imageRecorded;           /* the map of the checkpoint in progress */
byte recoverStep;
bool believed;
bool proved;                  /* an unfirm sum equals the cell's content */
byte content;                 /* the content that recovery read */
bool bothLogs;

/* What the promises demand: the last write that … */
byte acked;                   /* … was acknowledged */
byte ackedBefore;             /* … was acknowledged when the flush in progress began */
byte imageAcked;              /* … was acknowledged when the checkpoint in progress switched the logs */
byte flushed;                 /* … was acknowledged when the last completed flush or checkpoint began */
byte owed;                    /* … counts after this crash */
bool isJudged;                /* a recovery has read `owed`, and nothing was lost since: only `owed` is right */
byte nextWrite = FIRST_WRITE;
byte checkpoints;
byte flushes;
byte crashes;
bool mayLoseWriteBack = true;
bool running;
bool isFirstLife = true;

/* Scratch of one step; 0 between steps. */
byte i, s, last, barrier;

inline clear_scratch() {
  i = 0; s = 0; last = 0; barrier = 0
}

inline put(value) {
  target = value;
  if :: isClean -> isClean = false :: else fi;
  onDisk = onDisk | (1 << value)
}

inline sync_target() {
  if :: isClean :: else -> onDisk = 1 << target fi
}

inline append(type, argument) {
  s = SLOT(epoch);
  assert(logEpoch[s] == epoch);
  types[FRAME(s, sequence[s])] = type; arguments[FRAME(s, sequence[s])] = argument;
  last = POSITION(epoch, sequence[s]);
  sequence[s]++
}

inline sync_log(slot) {
  synced[slot] = sequence[slot]; logDurable[slot] = true
}

inline clear_log(slot) {
  sequence[slot] = 0; synced[slot] = 0;
  for (i : 0 .. MAX_FRAMES - 1) { types[FRAME(slot, i)] = 0; arguments[FRAME(slot, i)] = 0 }
}

/* Truncates the slot's file and writes a header. */
inline create_log(newEpoch) {
  clear_log(SLOT(newEpoch));
  logEpoch[SLOT(newEpoch)] = newEpoch; logDurable[SLOT(newEpoch)] = false
}

/* Zeroes the header and writes the body. */
inline write_body(newEpoch) {
  s = SLOT(newEpoch);
  checkpointEpoch[s] = 0; checkpointOnDisk[s] = 0; checkpointRecorded[s] = false; checkpointStandalone[s] = false
}

inline write_header(newEpoch, map, isStandalone) {
  s = SLOT(newEpoch);
  checkpointEpoch[s] = newEpoch; checkpointRecorded[s] = map; checkpointStandalone[s] = isStandalone
}

inline sync_checkpoint(slot) {
  checkpointOnDisk[slot] = checkpointEpoch[slot]
}

/* Rules 4 and 5. */
#ifdef BUG_NO_RECORD
#define IS_FIRM recorded
#else
#define IS_FIRM (recorded && recordedAt < firm)
#endif
#define HAS_UNFIRM_SUM (lastSum >= firm)

inline begin_write() {
  writeId = nextWrite; nextWrite++;
  needsRecord = !IS_FIRM;
  printf("write %d begins\n", writeId);
#ifndef BUG_NO_MAYREAD
  if
  :: needsRecord && HAS_UNFIRM_SUM ->
     append(MAYREAD, writeId);
     lastSum = last; lastRecord = last;
     printf("log %d: MAYREAD %d\n", epoch, writeId)
  :: else
  fi;
#endif
#ifdef BUG_ORDER
  if :: needsRecord -> append_written(); needsRecord = false :: else fi;
#endif
  writeStep = WRITE_TARGET
}

inline append_written() {
  append(WRITTEN, writeId);
  lastSum = last; lastRecord = last;
  if :: !recorded -> recordedAt = last :: else fi;
  recorded = true;
  printf("log %d: WRITTEN %d\n", epoch, writeId)
}

inline write_target() {
  put(writeId);
  printf("write %d is on the target\n", writeId);
  if :: needsRecord -> writeStep = RECORD :: else -> acknowledge() fi
}

inline acknowledge() {
  printf("write %d is acknowledged\n", writeId);
  acked = writeId;
  writeStep = IDLE; writeId = 0; needsRecord = false
}

active proctype writer() {
end:
  do
  :: d_step { running && isFirstLife && writeStep == IDLE && fillStep != WRITE_TARGET &&
       nextWrite < FIRST_WRITE + WRITES -> begin_write(); clear_scratch() }
  :: d_step { writeStep == WRITE_TARGET -> write_target(); clear_scratch() }
  :: d_step { writeStep == RECORD -> append_written(); acknowledge(); clear_scratch() }
  od
}

/* A user's write may come between the fill and its record. */
inline record_fill() {
  append(FILLED, 0);
  lastRecord = last;
  if :: !recorded -> recordedAt = last :: else fi;
  recorded = true;
  printf("log %d: FILLED\n", epoch);
  fillStep = IDLE
}

active proctype hydrator() {
end:
  do
  :: d_step { running && isFirstLife && fillStep == IDLE && writeStep == IDLE && !recorded ->
       printf("the fill begins\n"); fillStep = WRITE_TARGET }
  :: d_step { fillStep == WRITE_TARGET -> put(SOURCE); printf("the fill is on the target\n"); fillStep = RECORD }
  :: d_step { fillStep == RECORD -> record_fill(); clear_scratch() }
  od
}

/* Other flushes change nothing. */
#define MAY_FLUSH (running && isFirstLife && flushStep == IDLE && flushes < FLUSHES && \
  (lastRecord >= firm || acked != flushed || onDisk != 1 << target || writeStep != IDLE || fillStep != IDLE))

inline begin_flush() {
  flushes++;
  flushEpoch = epoch;
  through = sequence[SLOT(epoch)];
  ackedBefore = acked;
  printf("a flush begins: log %d, sequence %d\n", flushEpoch, through);
  flushStep = SYNC_TARGET
}

/* If the logs were switched since the flush began, its barrier would cover too much in the new log: it starts again. */
inline append_barrier() {
#ifdef BUG_BARRIER
  flushEpoch = epoch; through = sequence[SLOT(epoch)];
#endif
#ifdef BUG_SWITCH
  if :: epoch != flushEpoch -> flushEpoch = epoch; through = 0 :: else fi;
#endif
  if
  :: lastRecord < firm -> flushStep = SYNC_LOG
  :: lastRecord >= firm && epoch != flushEpoch -> printf("the logs were switched\n"); end_flush()
  :: lastRecord >= firm && epoch == flushEpoch ->
     hasBarrier = true;
     append(BARRIER, through);
     printf("log %d: BARRIER %d\n", flushEpoch, through);
     flushStep = (baseMissing -> SYNC_OLD_LOG : SYNC_LOG)
  fi
}

inline sync_old_log() {
#ifndef BUG_SYNC_NEW_ONLY
  sync_log(1 - SLOT(flushEpoch));
#endif
  flushStep = SYNC_LOG
}

/* Records at lower positions are firm. */
inline make_firm(position) {
  if :: position > firm -> firm = position :: else fi;
  if :: recordedAt < firm -> recordedAt = 0 :: else fi;
  if :: lastRecord < firm -> lastRecord = 0 :: else fi;
  if :: lastSum < firm -> lastSum = 0 :: else fi
}

/* Rule 9: only the frames that the barrier names become firm. */
inline complete_flush() {
  if
  :: hasBarrier ->
     sync_log(SLOT(flushEpoch));
#ifdef BUG_FIRM
     make_firm(POSITION(flushEpoch, sequence[SLOT(flushEpoch)]))
#else
     make_firm(POSITION(flushEpoch, through))
#endif
  :: else
  fi;
  if :: ackedBefore > flushed -> flushed = ackedBefore :: else fi;
  printf("the flush is complete\n");
  end_flush()
}

inline end_flush() {
  flushStep = IDLE; flushEpoch = 0; through = 0; hasBarrier = false; ackedBefore = 0
}

active proctype flusher() {
end:
  do
  :: d_step { MAY_FLUSH -> begin_flush() }
  :: d_step { flushStep == SYNC_TARGET ->
       sync_target(); printf("the flush has synced the target\n"); flushStep = APPEND_BARRIER }
  :: d_step { flushStep == APPEND_BARRIER -> append_barrier(); clear_scratch() }
  :: d_step { flushStep == SYNC_OLD_LOG -> sync_old_log() }
  :: d_step { flushStep == SYNC_LOG -> complete_flush(); clear_scratch() }
  od
}

/* CONTINUED, the map and the switch are one step: appends wait for it. */
inline switch_logs() {
  append(CONTINUED, 0);
  epoch++;
  imageRecorded = recorded;
  imageAcked = acked;
  baseMissing = true;
  printf("CONTINUED: the log is now %d\n", epoch)
}

/* The older log is void. Clearing it here keeps the number of states small. */
inline checkpoint_is_durable() {
  sync_checkpoint(SLOT(epoch));
  make_firm(POSITION(epoch, 0));
  baseMissing = false;
  clear_log(SLOT(epoch - 1));
  printf("checkpoint %d is durable\n", epoch)
}

inline complete_checkpoint() {
  sync_log(SLOT(epoch));
  if :: imageAcked > flushed -> flushed = imageAcked :: else fi;
  imageRecorded = false; imageAcked = 0;
  printf("the checkpoint is complete\n");
  checkpointStep = IDLE
}

active proctype checkpointer() {
end:
  do
  :: d_step { running && isFirstLife && checkpointStep == IDLE && checkpoints < CHECKPOINTS ->
       checkpoints++; create_log(epoch + 1); clear_scratch();
       printf("a checkpoint begins\n"); checkpointStep = SYNC_NEW_LOG }
  :: d_step { checkpointStep == SYNC_NEW_LOG -> sync_log(SLOT(epoch + 1)); checkpointStep = SWITCH }
  :: d_step { checkpointStep == SWITCH -> switch_logs(); clear_scratch(); checkpointStep = WRITE_BODY }
  :: d_step { checkpointStep == WRITE_BODY -> write_body(epoch); clear_scratch();
#ifdef BUG_HEADER_EARLY
       checkpointStep = WRITE_HEADER }
#else
       checkpointStep = SYNC_TARGET }
#endif
  :: d_step { checkpointStep == SYNC_TARGET -> sync_target();
       printf("the checkpoint has synced the target\n"); checkpointStep = SYNC_BODY }
  :: d_step { checkpointStep == SYNC_BODY -> sync_log(SLOT(epoch));
#ifdef BUG_HEADER_EARLY
       checkpointStep = SYNC_HEADER }
#else
       checkpointStep = WRITE_HEADER }
#endif
  :: d_step { checkpointStep == WRITE_HEADER -> write_header(epoch, imageRecorded, false); clear_scratch();
       printf("header of checkpoint %d\n", epoch);
#ifdef BUG_HEADER_EARLY
       checkpointStep = SYNC_TARGET }
#else
       checkpointStep = SYNC_HEADER }
#endif
  :: d_step { checkpointStep == SYNC_HEADER -> checkpoint_is_durable(); clear_scratch(); checkpointStep = APPEND_BASED }
  :: d_step { checkpointStep == APPEND_BASED -> append(BASED, 0); clear_scratch(); checkpointStep = SYNC_BASED }
  :: d_step { checkpointStep == SYNC_BASED -> complete_checkpoint(); clear_scratch() }
  od
}

/* Recovery. */

inline read_firm(slot) {
  for (i : 0 .. sequence[slot] - 1) {
    if
    :: types[FRAME(slot, i)] == BARRIER && POSITION(logEpoch[slot], arguments[FRAME(slot, i)]) > barrier ->
       barrier = POSITION(logEpoch[slot], arguments[FRAME(slot, i)])
    :: else
    fi
  }
}

/* Rule 1 and 2, first half: firm records count. */
inline apply_firm(slot) {
  for (i : 0 .. sequence[slot] - 1) {
    if
    :: POSITION(logEpoch[slot], i) < barrier && (types[FRAME(slot, i)] == WRITTEN || types[FRAME(slot, i)] == FILLED) ->
       believed = true
#ifdef BUG_FILLED
    :: POSITION(logEpoch[slot], i) >= barrier && types[FRAME(slot, i)] == FILLED -> believed = true
#endif
    :: else
    fi
  }
}

/* Rule 6: `last` is the last unfirm position whose sum is that of the cell. */
inline find_sum(slot) {
  for (i : 0 .. sequence[slot] - 1) {
    if
    :: POSITION(logEpoch[slot], i) >= barrier && arguments[FRAME(slot, i)] == target &&
       (types[FRAME(slot, i)] == WRITTEN || types[FRAME(slot, i)] == MAYREAD) -> last = POSITION(logEpoch[slot], i)
    :: else
    fi
  }
}

inline apply_proved(slot) {
  for (i : 0 .. sequence[slot] - 1) {
    if
    :: types[FRAME(slot, i)] == WRITTEN && POSITION(logEpoch[slot], i) >= barrier &&
       POSITION(logEpoch[slot], i) <= last -> proved = true
    :: else
    fi
  }
}

/* Reads everything and changes nothing. */
inline judge() {
  s = (checkpointEpoch[0] > checkpointEpoch[1] -> 0 : 1);
  epoch = checkpointEpoch[s];
  assert(epoch != 0);                                /* else: no checkpoint, COD_CORRUPT */
  believed = checkpointRecorded[s];
  bothLogs = false; proved = false; barrier = 0; last = 0;
  if
  :: !checkpointStandalone[s] ->
     s = SLOT(epoch);
     assert(logEpoch[s] == epoch);                   /* else: the log is missing, COD_CORRUPT */
     /* Rule 7. */
     bothLogs = sequence[s] > 0 && types[FRAME(s, sequence[s] - 1)] == CONTINUED && logEpoch[1 - s] == epoch + 1;
     read_firm(s);
     if :: bothLogs -> read_firm(1 - s) :: else fi;
     apply_firm(s);
     if :: bothLogs -> apply_firm(1 - s) :: else fi;
     find_sum(s);
#ifdef BUG_ONE_BY_ONE
     apply_proved(s); last = 0;
     if :: bothLogs -> find_sum(1 - s); apply_proved(1 - s) :: else fi;
#else
     if :: bothLogs -> find_sum(1 - s) :: else fi;
     apply_proved(s);
     if :: bothLogs -> apply_proved(1 - s) :: else fi;
#endif
     believed = believed || proved
  :: else
  fi;
  s = SLOT(epoch + 1);
  for (i : 0 .. sequence[s] - 1) {
    /* Else: the checkpoint of that log is missing, COD_CORRUPT. */
    assert(types[FRAME(s, i)] != BASED || logEpoch[s] <= epoch)
  }
  content = target
}

inline check_promises() {
  last = (believed -> content : SOURCE);
  printf("recovery of epoch %d, both logs: %d, barrier %d, proved: %d. The cell reads %d; owed: %d\n",
    epoch, bothLogs, barrier, proved, last, owed);
  assert(last != HOLE);
  assert(last >= owed);
  assert(last == owed || (last >= FIRST_WRITE && !isJudged));
  owed = last; isJudged = true
}

/* Rule 8: proved bytes are written again. */
inline write_again() {
#ifndef BUG_NO_REWRITE
  if :: proved -> put(content); printf("recovery writes %d again\n", content) :: else fi;
#endif
  recoverStep = SYNC_TARGET
}

/* Leaves a state from which a life may start: see start(). */
inline complete_recovery() {
  sync_log(SLOT(epoch));
  printf("recovery is complete, epoch %d\n", epoch);
  assert(!believed || onDisk == 1 << target);
  assert(logEpoch[SLOT(epoch)] == epoch && checkpointOnDisk[SLOT(epoch)] == epoch);
  assert(checkpointRecorded[SLOT(epoch)] == believed);
  acked = owed; flushed = owed; owed = 0; isJudged = false;
  recorded = believed; believed = false; proved = false; bothLogs = false; content = 0;
  recoverStep = IDLE; running = true; isFirstLife = false
}

#ifdef BUG_NO_STANDALONE
#define AFTER_SYNC CREATE_LOG
#else
#define AFTER_SYNC (bothLogs -> STANDALONE_BODY : CREATE_LOG)
#endif
#ifdef BUG_NO_CHECKPOINT_SYNC
#define AFTER_JUDGEMENT WRITE_AGAIN
#else
#define AFTER_JUDGEMENT SYNC_CHECKPOINT
#endif

active proctype recovery() {
end:
  do
  :: d_step { recoverStep == SYNC_CHECKPOINT -> sync_checkpoint(SLOT(epoch)); recoverStep = WRITE_AGAIN }
  :: d_step { recoverStep == WRITE_AGAIN -> write_again() }
  :: d_step { recoverStep == SYNC_TARGET -> sync_target(); recoverStep = AFTER_SYNC }
  /* A standalone checkpoint voids both logs. */
  :: d_step { recoverStep == STANDALONE_BODY -> epoch++; write_body(epoch); clear_scratch();
       recoverStep = STANDALONE_HEADER }
  :: d_step { recoverStep == STANDALONE_HEADER -> write_header(epoch, believed, true); clear_scratch();
       printf("header of standalone checkpoint %d\n", epoch); recoverStep = SYNC_STANDALONE }
  :: d_step { recoverStep == SYNC_STANDALONE -> sync_checkpoint(SLOT(epoch)); recoverStep = CREATE_LOG }
  /* The new log and its checkpoint. */
  :: d_step { recoverStep == CREATE_LOG -> epoch++; create_log(epoch); clear_scratch(); recoverStep = WRITE_BODY }
  :: d_step { recoverStep == WRITE_BODY -> write_body(epoch); clear_scratch(); recoverStep = SYNC_BODY }
  :: d_step { recoverStep == SYNC_BODY -> sync_target(); sync_log(SLOT(epoch)); recoverStep = WRITE_HEADER }
  :: d_step { recoverStep == WRITE_HEADER -> write_header(epoch, believed, false); clear_scratch();
       printf("header of checkpoint %d\n", epoch); recoverStep = SYNC_HEADER }
  :: d_step { recoverStep == SYNC_HEADER -> sync_checkpoint(SLOT(epoch)); recoverStep = APPEND_BASED }
  :: d_step { recoverStep == APPEND_BASED -> append(BASED, 0); clear_scratch(); recoverStep = SYNC_BASED }
  :: d_step { recoverStep == SYNC_BASED -> complete_recovery() }
  od
}

/* Crashes. */

inline forget_memory() {
  running = false; isFirstLife = false; recoverStep = IDLE; nextWrite = 0; checkpoints = 0; flushes = 0; acked = 0;
  epoch = 0; recorded = false; recordedAt = 0; lastRecord = 0; lastSum = 0; firm = 0; baseMissing = false;
  writeStep = IDLE; writeId = 0; needsRecord = false; fillStep = IDLE;
  end_flush();
  checkpointStep = IDLE; imageRecorded = false; imageAcked = 0;
  believed = false; proved = false; content = 0; bothLogs = false
}

inline lose_target() {
  if
  :: onDisk & 1 -> target = 0
  :: onDisk & 2 -> target = 1
  :: onDisk & 4 -> target = 2
  :: onDisk & 8 -> target = 3
  :: onDisk & 16 -> target = 4
  :: onDisk & 32 -> target = 5
  fi;
  onDisk = 1 << target; isClean = false
}

inline lose_log(slot) {
  if
  :: !logDurable[slot] -> logEpoch[slot] = 0
  :: true
  fi;
  do
  :: sequence[slot] > 0 && (sequence[slot] > synced[slot] || logEpoch[slot] == 0) ->
     sequence[slot]--; types[FRAME(slot, sequence[slot])] = 0; arguments[FRAME(slot, sequence[slot])] = 0
  :: logEpoch[slot] != 0 || sequence[slot] == 0 -> break
  od;
  synced[slot] = sequence[slot]; logDurable[slot] = true
}

inline lose_checkpoint(slot) {
  if
  :: checkpointEpoch[slot] != checkpointOnDisk[slot] ->
     checkpointEpoch[slot] = checkpointOnDisk[slot];
     if :: checkpointEpoch[slot] == 0 -> checkpointRecorded[slot] = false; checkpointStandalone[slot] = false
        :: else fi
  :: true
  fi;
  checkpointOnDisk[slot] = checkpointEpoch[slot]
}

inline start() {
  for (i : 0 .. 1) {
    logEpoch[i] = 2 - i; logDurable[i] = true; checkpointEpoch[i] = 2 - i; checkpointOnDisk[i] = 2 - i
  }
  epoch = 2; firm = POSITION(2, 0);
  checkpointRecorded[0] = recorded;
  acked = (recorded -> OLD : SOURCE); flushed = acked;
  onDisk = 1 << target;
  running = true
}

inline crash() {
  crashes++;
  forget_memory();
  clear_scratch()
}

/* Recovery reads all files; it begins to change them only after this step. */
inline begin_recovery() {
  judge(); check_promises(); clear_scratch();
  recoverStep = AFTER_JUDGEMENT
}

/*
 * A failed write-back that no process notices. The device's own sync would fail, and the device would be poisoned: that
 * is a process crash before this step. A firm cell that was overwritten without a record is not written again.
 */
#ifdef LIMIT_FIRM
#define MAY_STAY_CLEAN true
#else
#define MAY_STAY_CLEAN (proved || !believed)
#endif

active proctype machine() {
  atomic {
    if
    :: target = HOLE
    :: target = SOURCE
    :: target = OLD; recorded = true
    fi;
    printf("the target holds %d, recorded: %d\n", target, recorded);
    d_step { start(); clear_scratch() }
  }
end:
  do
  :: d_step { (running || recoverStep != IDLE) && crashes < CRASHES ->
       printf("the process crashes\n");
       if :: running -> owed = acked; isJudged = false :: else fi;
       crash(); begin_recovery()
     }
  :: atomic { (running || recoverStep != IDLE) && crashes < CRASHES ->
       printf("unsynced data is lost\n");
       d_step { owed = flushed; isJudged = false; crash() }
       lose_target(); lose_log(0); lose_log(1); lose_checkpoint(0); lose_checkpoint(1);
       d_step { begin_recovery() }
     }
  :: atomic { recoverStep == SYNC_CHECKPOINT && mayLoseWriteBack && onDisk != 1 << target && MAY_STAY_CLEAN ->
       printf("the kernel's write-back of the target fails\n");
       mayLoseWriteBack = false; content = target;
       lose_target();
       d_step { onDisk = 1 << target; target = content; isClean = true }
     }
  od
}
