import java.time.Instant
import java.time.temporal.ChronoUnit

import qupath.lib.projects.Project
import qupath.lib.projects.ProjectImageEntry

/**
 * Where the slides of a project stand, and what a person says of them.
 *
 * qpannot and this class talk through the metadata of images in the project:
 *   qpannot.state  unannotated slides have none; proposed, reviewed, approved, sent back
 *   qpannot.queue  the place of a slide that waits, such as 03; written by qpannot
 *   qpannot.said   what was said here and qpannot has not heard yet; qpannot takes it away
 * Before QuPath 0.6, which has tags for it, qpannot.written repeats the state as qpannot wrote it.
 *
 * Needs no window. The same in QuPath 0.4 to 0.7.
 */
class SlideQueue {

    static final String STATE = 'qpannot.state'
    static final String QUEUE = 'qpannot.queue'
    static final String SAID = 'qpannot.said'

    static final String PROPOSED = 'proposed'
    static final String REVIEWED = 'reviewed'
    static final String APPROVED = 'approved'
    static final String SENT_BACK = 'sent back'

    private static final String TAG = 'qpannot: '
    private static final int LAST = Integer.MAX_VALUE

    final Project project

    SlideQueue(Project project) {
        this.project = project
    }

    /** The slides that wait for the first reader, those that teach most first. */
    List<ProjectImageEntry> waiting() {
        return inState(PROPOSED, SENT_BACK).sort(false) { place(it) }
    }

    /** The slides that wait for the second reader, in the project's order. */
    List<ProjectImageEntry> reviewed() {
        return inState(REVIEWED)
    }

    /** The slide of a list that follows another, from the start again after the last; may be null. */
    static ProjectImageEntry following(ProjectImageEntry entry, List<ProjectImageEntry> entries) {
        def others = entries.findAll { it.getID() != entry.getID() }
        int at = entries.findIndexOf { it.getID() == entry.getID() }
        return others.isEmpty() ? null : others[at < 0 || at >= others.size() ? 0 : at]
    }

    static String state(ProjectImageEntry entry) {
        return entry.getMetadataValue(STATE)
    }

    /** A slide in words: its place, its name, where it stands. */
    static String describe(ProjectImageEntry entry) {
        def number = entry.getMetadataValue(QUEUE)
        return "${number ? number + '   ' : ''}${entry.getImageName()}   ${state(entry) ?: 'unannotated'}"
    }

    /** Writes what a person says of a slide into the project file. The image's data must be saved. */
    void say(ProjectImageEntry entry, String state, String by) {
        def word = "$state ${Instant.now().truncatedTo(ChronoUnit.MILLIS)}".toString()
        if (by)
            word += ' by ' + by.replaceAll(/[;\s]+/, ' ').trim()
        def before = entry.getMetadataValue(SAID)
        entry.putMetadataValue(SAID, before ? before + '; ' + word : word)
        entry.putMetadataValue(STATE, state)
        entry.removeMetadataValue(QUEUE)
        if (entry.respondsTo('getTags')) { // since QuPath 0.6
            entry.getTags().removeIf { it.startsWith(TAG) }
            entry.getTags().add(TAG + (state == SENT_BACK ? PROPOSED : state))
        }
        project.syncChanges()
    }

    private List<ProjectImageEntry> inState(String... states) {
        return project.getImageList().findAll { state(it) in states }
    }

    private static int place(ProjectImageEntry entry) {
        def number = entry.getMetadataValue(QUEUE)
        return number?.isInteger() ? number.toInteger() : LAST
    }
}
