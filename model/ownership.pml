/*
 * Two owners on two machines with one shared storage: a device of one cell.
 *
 * Purpose: that a take-over loses nothing that was flushed, although the old owner may be paused before any of its
 * steps, and for any time. Rules 10 to 16 of model/README.md.
 * Checked: promise 7. An owner acknowledges no flush or close whose check came after the take-over. If the check came
 * before, the new owner has recovered what the flush covers, whenever the acknowledgement comes. Nothing is lost that
 * either owner has flushed, and each read gives a write or the source's content (promises 2 and 3).
 *
 * Bounds: WRITES writes and FLUSHES flushes by each owner, one take-over, one close of the old owner, and one power
 * cut, which ends the run. Owner 0 is the old one and owner 1 the new one.
 * The life of owner 0 starts from each state that a completed recovery leaves.
 *
 *   target    the storage's content of the cell, which both machines see
 *   dirty     the write that is only in a machine's page cache; 0: none. The kernel may write it back at any time
 *   stored    frames of an owner that are in its log on the storage; the others are only in its machine's page cache
 *   lock      the owner that the lock file names, as read by its name
 * What is in the storage is durable. A sync writes back what is in one machine's page cache. Names change at once.
 * A pause needs no step, and the beat of the old owner none either: owner 1 may take over before any other step, as if
 * the beat had stood still for long enough, or as if its user had said `takeOver`. The sum of a cell is its content.
 *
 * Each `::` of a process is one step, and every step is atomic.
 * README.md lists the planted mistakes BUG_… and the shown limits LIMIT_….
 */
#ifndef WRITES
#define WRITES 2
#endif
#ifndef FLUSHES
#define FLUSHES 2
#endif

/* Contents of the cell. The writes of owner 1 follow those of owner 0. */
#define HOLE 0                /* zeros, or stale bytes */
#define SOURCE 1
#define OLD 2                 /* a write of an earlier life */
#define FIRST_WRITE(owner) (3 + WRITES * (owner))
#define IS_OF_OLD_OWNER(value) ((value) < FIRST_WRITE(1))

/* Types of records. */
#define WRITTEN 1             /* argument: the sum */
#define MAYREAD 2             /* argument: the sum */
#define BARRIER 3             /* argument: a sequence */
#define MAX_FRAMES (2 * WRITES + FLUSHES + 1)
#define FRAME(owner, index) (MAX_FRAMES * (owner) + (index))

#define NONE 2                /* the lock file is missing */

/* Steps. */
#define IDLE 0
#define WRITE_TARGET 1
#define RECORD 2
#define SYNC_TARGET 3
#define APPEND_BARRIER 4
#define SYNC_LOG 5
#define CHECK 6
#define RELEASE 7
#define ACKNOWLEDGE 8
#define WRITE_DRAFT 9
#define SYNC_DRAFT 10
#define RENAME_DRAFT 11
#define READ_METADATA 12
#define WRITE_AGAIN 13
#define SYNC_AGAIN 14
#define CREATE_FILES 15
#define DONE 16
#define MOVE_ASIDE 17
#define CHECK_REMOVAL 18
#define PUT_BACK 19
#define REMOVE_MOVED 20

/* The storage. */
byte target;
byte lock;
bool lockIsWritten = true;    /* the content of the lock file is in the storage, too */
byte metadata;                /* the owner whose checkpoint and log the names lead to */
byte name;                    /* the owner of the file that one more name leads to; NONE: it is missing */
byte aside = NONE;            /* the owner of the file that the old owner has moved aside; NONE: nothing is */
bool base[2];                 /* the checkpoint of an owner: the target holds the cell */
byte fileOf[2];               /* the file of an owner's log */
byte frameOwner[2 * MAX_FRAMES]; /* of a file and a place: 1 + the owner of the frame there; 0: none */
bool socket[2];               /* an owner's socket exists: its sign of life on its machine */

/* The page caches of the machines. */
byte dirty[2];
byte stored[2];

/* The memory of the owners. */
bool running[2];
byte removeStep;
byte types[2 * MAX_FRAMES];
byte arguments[2 * MAX_FRAMES];
byte sequence[2];
bool recorded[2];             /* the target holds the cell: the map */
byte firm[2];                 /* frames below are firm */
bool isFirm[2];               /* the checkpoint or a firm frame has the cell */
byte lastSum[2];              /* 1 + the last frame with a sum; 0: none */
byte writeStep[2];
byte writeId[2];
bool needsRecord[2];
byte flushStep[2];
byte through[2];
bool isClose[2];              /* the flush in progress is the one of a close */
byte takeStep;
bool believed;
byte content;                 /* the content that the take-over has read */

/* What the promises demand. */
byte nextWrite[2];
byte flushes[2];
byte acked[2];                /* the last write that an owner acknowledged */
byte covered[2];              /* … when the flush in progress began */
byte seen[2];                 /* the lock at the check of the flush in progress */
byte flushed;                 /* the last write that a completed flush covers */
byte recovered;               /* what the new owner has read first; 0: nothing yet */
bool isLate;                  /* a write of the old owner has reached the target after the take-over */
bool ended;

/* Scratch of one step; 0 between steps. */
byte i, last, barrier, value;

inline clear_scratch() {
  i = 0; last = 0; barrier = 0; value = 0
}

/* The page cache. */

inline write_back_target(owner) {
  target = dirty[owner]; dirty[owner] = 0;
  if
  :: owner == 0 && lock != 0 -> isLate = true; printf("write %d of the old owner comes late\n", target)
  :: else
  fi
}

/* Frames reach the storage in order. */
inline write_back_frame(owner) {
  frameOwner[FRAME(fileOf[owner], stored[owner])] = owner + 1;
  stored[owner]++
}

/* Writes: rules 1, 4 and 5. */

inline append(owner, type, argument) {
  types[FRAME(owner, sequence[owner])] = type; arguments[FRAME(owner, sequence[owner])] = argument;
  sequence[owner]++;
  if :: type != BARRIER -> lastSum[owner] = sequence[owner] :: else fi
}

inline begin_write(owner) {
  writeId[owner] = nextWrite[owner]; nextWrite[owner]++;
  needsRecord[owner] = !isFirm[owner];
  printf("owner %d: write %d begins\n", owner, writeId[owner]);
  if
  :: needsRecord[owner] && lastSum[owner] > firm[owner] -> append(owner, MAYREAD, writeId[owner])
  :: else
  fi;
  writeStep[owner] = WRITE_TARGET
}

inline write_target(owner) {
  dirty[owner] = writeId[owner];
  if :: needsRecord[owner] -> writeStep[owner] = RECORD :: else -> acknowledge_write(owner) fi
}

inline record_write(owner) {
  append(owner, WRITTEN, writeId[owner]);
  recorded[owner] = true;
  acknowledge_write(owner)
}

inline acknowledge_write(owner) {
  printf("owner %d: write %d is acknowledged\n", owner, writeId[owner]);
  acked[owner] = writeId[owner];
  writeStep[owner] = IDLE; writeId[owner] = 0; needsRecord[owner] = false
}

#define MAY_WRITE(owner) (running[owner] && !isClose[owner] && writeStep[owner] == IDLE && \
  nextWrite[owner] < FIRST_WRITE(owner) + WRITES)

/* The first two processes: their numbers are those of the owners. */
active [2] proctype writer() {
end:
  do
  :: d_step { !ended && MAY_WRITE(_pid) -> begin_write(_pid) }
  :: d_step { !ended && writeStep[_pid] == WRITE_TARGET -> write_target(_pid) }
  :: d_step { !ended && writeStep[_pid] == RECORD -> record_write(_pid) }
  od
}

/* Flushes, and the close of the old owner: rules 10 and 14. */

#ifdef BUG_FENCE_EARLY
#define FIRST_STEP(owner) CHECK
#define AFTER_CHECK(owner) SYNC_TARGET
#define AFTER_LOG(owner) (isClose[owner] -> RELEASE : ACKNOWLEDGE)
#else
#ifdef BUG_NO_FENCE
#define FIRST_STEP(owner) SYNC_TARGET
#define AFTER_CHECK(owner) ACKNOWLEDGE
#define AFTER_LOG(owner) (isClose[owner] -> RELEASE : ACKNOWLEDGE)
#else
#ifdef BUG_RELEASE_EARLY
#define FIRST_STEP(owner) (isClose[owner] -> CHECK : SYNC_TARGET)
#define AFTER_CHECK(owner) (isClose[owner] -> RELEASE : ACKNOWLEDGE)
#define AFTER_LOG(owner) (isClose[owner] -> ACKNOWLEDGE : CHECK)
#define AFTER_RELEASE SYNC_TARGET
#else
#define FIRST_STEP(owner) SYNC_TARGET
#define AFTER_CHECK(owner) (isClose[owner] -> RELEASE : ACKNOWLEDGE)
#define AFTER_LOG(owner) CHECK
#endif
#endif
#endif
#ifndef AFTER_RELEASE
#define AFTER_RELEASE ACKNOWLEDGE
#endif

/* Other flushes change nothing. */
#define MAY_FLUSH(owner) (running[owner] && flushStep[owner] == IDLE && flushes[owner] < FLUSHES && \
  acked[owner] > flushed)
/* A close waits for what is in flight. */
#define MAY_CLOSE (running[0] && flushStep[0] == IDLE && writeStep[0] == IDLE)

inline begin_flush(owner) {
  covered[owner] = acked[owner];
  through[owner] = sequence[owner];
  seen[owner] = owner;
  printf("owner %d: a flush begins (close: %d), sequence %d, covers write %d\n",
    owner, isClose[owner], through[owner], covered[owner]);
  flushStep[owner] = FIRST_STEP(owner)
}

inline sync_target(owner) {
  if :: dirty[owner] != 0 -> write_back_target(owner) :: else fi
}

inline append_barrier(owner) {
  if
  :: lastSum[owner] > firm[owner] -> append(owner, BARRIER, through[owner])
  :: else
  fi;
  flushStep[owner] = SYNC_LOG
}

inline sync_log(owner) {
  for (i : stored[owner] .. sequence[owner] - 1) { frameOwner[FRAME(fileOf[owner], i)] = owner + 1 }
  stored[owner] = sequence[owner];
  for (i : firm[owner] .. through[owner] - 1) {
    if :: types[FRAME(owner, i)] == WRITTEN -> isFirm[owner] = true :: else fi
  }
  firm[owner] = through[owner];
#ifdef BUG_NO_FENCE
  seen[owner] = lock;
#endif
  flushStep[owner] = AFTER_LOG(owner)
}

/* An owner that finds another one in the lock rejects everything from now on. It removes nothing. */
inline check_lock(owner) {
  seen[owner] = lock;
  if
  :: lock == owner -> printf("owner %d: the lock is mine\n", owner); flushStep[owner] = AFTER_CHECK(owner)
  :: else ->
     printf("owner %d: the lock is lost\n", owner);
     running[owner] = false;
     end_flush(owner)
  fi
}

/* Rule 14: it marks its own file, which may have lost its name meanwhile. */
inline release(owner) {
  printf("owner %d releases the lock\n", owner);
#ifdef BUG_RELEASE_BY_NAME
  lock = NONE;
  assert(!running[1]);                 /* else: the lock of a running owner is removed */
#endif
  flushStep[owner] = AFTER_RELEASE
}

inline acknowledge_flush(owner) {
  printf("owner %d: acknowledged, covers write %d\n", owner, covered[owner]);
  assert(seen[owner] == owner);        /* else: the check came after the take-over */
  /* Else: the new owner has read the metadata, and has not found what the flush covers. */
  assert(owner == 1 || recovered == 0 || recovered >= covered[owner]);
#ifdef LIMIT_LATE_ACKNOWLEDGEMENT
  assert(owner == 1 || lock == 0);
#endif
  if :: covered[owner] > flushed -> flushed = covered[owner] :: else fi;
  if :: isClose[owner] -> running[owner] = false; remove_socket(owner) :: else fi;
  end_flush(owner)
}

/* Rule 15. libuv removes the name that it has bound. */
inline remove_socket(owner) {
#ifdef BUG_SOCKET_NAME
  socket[0] = false; socket[1] = false;
#else
  socket[owner] = false;
#endif
  assert(!running[1 - owner] || socket[1 - owner])
}

inline end_flush(owner) {
  flushStep[owner] = IDLE; through[owner] = 0; covered[owner] = 0; seen[owner] = 0
}

/* The next two processes. */
#define OWNER (_pid - 2)

active [2] proctype flusher() {
end:
  do
  :: d_step { !ended && MAY_FLUSH(OWNER) -> flushes[OWNER]++; begin_flush(OWNER) }
  :: d_step { !ended && OWNER == 0 && MAY_CLOSE && !isClose[0] -> isClose[0] = true; begin_flush(0) }
  :: d_step { !ended && flushStep[OWNER] == SYNC_TARGET -> sync_target(OWNER); flushStep[OWNER] = APPEND_BARRIER }
  :: d_step { !ended && flushStep[OWNER] == APPEND_BARRIER -> append_barrier(OWNER) }
  :: d_step { !ended && flushStep[OWNER] == SYNC_LOG -> sync_log(OWNER); clear_scratch() }
  :: d_step { !ended && flushStep[OWNER] == CHECK -> check_lock(OWNER) }
  :: d_step { !ended && flushStep[OWNER] == RELEASE -> release(OWNER) }
  :: d_step { !ended && flushStep[OWNER] == ACKNOWLEDGE -> acknowledge_flush(OWNER) }
#ifdef BUG_BEAT_BY_NAME
  :: d_step { !ended && OWNER == 0 && running[0] && lock != 0 -> printf("owner 0 beats\n"); lock = 0 }
#endif
  od
}

active proctype kernels() {
end:
  do
  :: d_step { !ended && dirty[0] != 0 -> write_back_target(0) }
  :: d_step { !ended && dirty[1] != 0 -> write_back_target(1) }
  :: d_step { !ended && stored[0] < sequence[0] -> write_back_frame(0) }
  :: d_step { !ended && stored[1] < sequence[1] -> write_back_frame(1) }
  od
}

/* Recovery: rules 1 and 6. The frames of another owner are a torn tail. */

#define IS_THERE(owner, index) ((index) < sequence[owner] && frameOwner[FRAME(fileOf[owner], index)] == (owner) + 1)

inline judge(owner) {
  believed = base[owner];
  value = 0;
  do
  :: value < MAX_FRAMES && IS_THERE(owner, value) -> value++
  :: else -> break
  od;
  for (i : 0 .. value - 1) {
    if
    :: types[FRAME(owner, i)] == BARRIER && arguments[FRAME(owner, i)] > barrier -> barrier = arguments[FRAME(owner, i)]
    :: else
    fi
  }
  for (i : barrier .. value - 1) {
    if
    :: types[FRAME(owner, i)] != BARRIER && arguments[FRAME(owner, i)] == target -> last = i + 1
    :: else
    fi
  }
  if :: last < barrier -> last = barrier :: else fi;
  for (i : 0 .. last - 1) {
    if :: types[FRAME(owner, i)] == WRITTEN -> believed = true :: else fi
  }
  value = (believed -> target : SOURCE);
  printf("recovery of owner %d's metadata reads %d; flushed: %d\n", owner, value, flushed)
}

/* A late write may stand in place of what the new owner has flushed. Only the storage could prevent that. */
#ifdef LIMIT_LATE_WRITE
#define IS_EXCUSED false
#else
#define IS_EXCUSED (isLate && IS_OF_OLD_OWNER(value))
#endif

inline check_value(owed) {
  assert(value != HOLE);
  assert(value >= owed || IS_EXCUSED)
}

/* The take-over: rules 11 to 13. */

inline read_metadata() {
  judge(0);
  check_value(flushed);
  recovered = value;
  content = target
}

inline create_files() {
#ifdef BUG_REUSE_FILES
  fileOf[1] = 0;
  for (i : 0 .. MAX_FRAMES - 1) { frameOwner[FRAME(0, i)] = 0 }
#else
  fileOf[1] = 1;
#endif
  base[1] = believed; recorded[1] = believed; isFirm[1] = believed;
  acked[1] = recovered;
  metadata = 1; name = 1;
  believed = false; content = 0;
  running[1] = true;
  printf("the take-over is complete\n")
}

#ifdef BUG_LOCK_UNSYNCED
#define AFTER_DRAFT RENAME_DRAFT
#else
#define AFTER_DRAFT SYNC_DRAFT
#endif
#ifdef BUG_READ_EARLY
#define BEFORE_RENAME READ_METADATA
#define AFTER_READ RENAME_DRAFT
#define AFTER_RENAME WRITE_AGAIN
#else
#define BEFORE_RENAME RENAME_DRAFT
#define AFTER_READ WRITE_AGAIN
#define AFTER_RENAME READ_METADATA
#endif

active proctype taker() {
  bool draftIsWritten;
end:
  do
  :: d_step { !ended && takeStep == WRITE_DRAFT -> takeStep = AFTER_DRAFT }
  :: d_step { !ended && takeStep == SYNC_DRAFT -> draftIsWritten = true; takeStep = BEFORE_RENAME }
  :: d_step { !ended && takeStep == RENAME_DRAFT ->
       printf("owner 1 takes the lock over\n");
       lock = 1; lockIsWritten = draftIsWritten; socket[1] = true; takeStep = AFTER_RENAME }
  :: d_step { !ended && takeStep == READ_METADATA -> read_metadata(); clear_scratch(); takeStep = AFTER_READ }
  /* Rule 8. */
  :: d_step { !ended && takeStep == WRITE_AGAIN ->
       if :: believed -> dirty[1] = content :: else fi;
       takeStep = SYNC_AGAIN }
  :: d_step { !ended && takeStep == SYNC_AGAIN -> sync_target(1); takeStep = CREATE_FILES }
  :: d_step { !ended && takeStep == CREATE_FILES -> create_files(); clear_scratch(); takeStep = DONE }
  od
}

/*
 * Rule 16: the old owner removes a name whose file it does not need. The file of the new owner at this name is needed.
 * The old owner has checked the lock before.
 */
#ifdef REMOVAL
active proctype remover() {
end:
  do
  :: d_step { !ended && removeStep == IDLE && running[0] && lock == 0 ->
       printf("owner 0 is about to remove a name\n"); removeStep = MOVE_ASIDE }
#ifdef BUG_REMOVE_BY_NAME
  :: d_step { !ended && removeStep == MOVE_ASIDE -> name = NONE; removeStep = DONE }
#else
  :: d_step { !ended && removeStep == MOVE_ASIDE -> aside = name; name = NONE; removeStep = CHECK_REMOVAL }
#endif
#ifdef BUG_REMOVE_UNCHECKED
  :: d_step { !ended && removeStep == CHECK_REMOVAL -> removeStep = REMOVE_MOVED }
#else
  :: d_step { !ended && removeStep == CHECK_REMOVAL -> removeStep = (lock == 0 -> REMOVE_MOVED : PUT_BACK) }
#endif
  /* A link, which fails if the name is taken. Then the next owner decides. */
  :: d_step { !ended && removeStep == PUT_BACK ->
       if :: name == NONE -> name = aside; aside = NONE :: else fi;
       removeStep = DONE }
  :: d_step { !ended && removeStep == REMOVE_MOVED -> aside = NONE; removeStep = DONE }
  od
}
#endif

/* The new owner reads the cell while it runs. It sees its own page cache. */
active proctype reader() {
end:
  do
  :: d_step { running[1] && !ended ->
       value = (recorded[1] -> (dirty[1] != 0 -> dirty[1] : target) : SOURCE);
       check_value(acked[1]); clear_scratch() }
  od
}

inline start(content, isRecorded) {
  target = content;
  base[0] = isRecorded; recorded[0] = isRecorded; isFirm[0] = isRecorded;
  flushed = (isRecorded -> OLD : SOURCE); acked[0] = flushed;
  nextWrite[0] = FIRST_WRITE(0); nextWrite[1] = FIRST_WRITE(1);
  socket[0] = true; running[0] = true; takeStep = WRITE_DRAFT;
  printf("the target holds %d\n", content)
}

/* Both machines lose their page caches. A third owner reads what is there. */
inline cut_power() {
  printf("the power is cut\n");
  assert(lockIsWritten);               /* else: the lock is empty, and no process may take it */
  dirty[0] = 0; dirty[1] = 0;
  /* The third owner puts back what was moved aside, if the name is free. */
#ifndef BUG_LEFT_ASIDE
  if :: name == NONE -> name = aside :: else fi;
#endif
  assert(metadata == 0 || name == 1);  /* else: a file of the new owner has lost its name */
  judge(metadata);
  check_value(flushed)
}

active proctype machines() {
  if
  :: d_step { start(HOLE, false) }
  :: d_step { start(OLD, true) }
  fi;
  d_step { cut_power(); ended = true; clear_scratch() }
}
