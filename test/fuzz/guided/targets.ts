/** All targets by their names. */

import type { Target } from './target.ts';
import { config, manifest, order } from './targets/files.ts';
import { http } from './targets/http.ts';
import { format1, format2 } from './targets/metadata.ts';
import { nbdClient } from './targets/nbd-client.ts';
import { nbdHandshake, nbdRequests } from './targets/nbd-server.ts';
import { qcow2 } from './targets/qcow2.ts';
import { exfat, ext, fat, iso, ntfs, partitions } from './targets/volumes.ts';

export const TARGETS: Readonly<Record<string, Target>> = {
  format1,
  format2,
  'nbd-handshake': nbdHandshake,
  'nbd-requests': nbdRequests,
  'nbd-client': nbdClient,
  qcow2,
  http,
  fat,
  exfat,
  ntfs,
  ext,
  iso,
  partitions,
  manifest,
  order,
  config,
};

/** The sources that the targets test: the beginnings of their paths. */
export const TESTED: readonly string[] = ['src/', 'assembly'];
