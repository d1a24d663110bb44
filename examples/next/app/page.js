'use client';

import { useEffect, useState } from 'react';
import { showDisk } from './disk.js';

export default function Page() {
  const [lines, setLines] = useState([]);
  useEffect(() => {
    const left = new AbortController();
    const say = (line) => setLines((before) => [...before, line]);
    showDisk(say, left.signal).catch((error) => left.signal.aborted || say(String(error)));
    return () => left.abort();
  }, []);
  return <output>{lines.join(' ')}</output>;
}
