"""The zygote's memory as a file that its children map, so that pages which they copied can become shared again."""

class Image:
    """Of nothing until `take`: there is nothing to give back then."""

    def take(self) -> None:
        """Heap and arenas of the calling process, of one thread, become private mappings of a sealed file in memory
        that has their bytes.

        Raises OSError or MemoryError if the kernel will not; the process is as good as before.
        """

    def give_back(self, size: int) -> bool:
        """Look at the next `size` bytes of it: a page of this process that has the image's bytes again is given back.

        That is one on which a reference was counted and dropped. At the beginning of a pass what malloc holds
        and nobody uses goes as well. True at the end of a pass over all of it.
        """
