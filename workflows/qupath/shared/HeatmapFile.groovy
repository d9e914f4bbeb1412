import java.awt.image.BufferedImage
import java.awt.image.DataBuffer
import java.awt.image.DataBufferByte
import java.awt.image.IndexColorModel
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.util.zip.InflaterInputStream
import javax.xml.parsers.DocumentBuilderFactory

import com.google.gson.Gson

/**
 * A heatmap as qpannot writes it: an OME-TIFF with a byte for each pixel and class.
 *
 * It is read here, and not by one of QuPath's readers, because only the description in the file says
 * where on the slide its pixels lie. The file is a little-endian BigTIFF of deflated tiles, a page for
 * each class, smaller levels in the page's SubIFDs. A byte is 0 where nothing was predicted, otherwise
 * the probability is (byte - 1) / 254. Needs Java and Gson, which QuPath brings.
 */
class HeatmapFile {

    /** Where the file has smaller levels, no more pixels than this are read along a side. */
    static final int MOST_PIXELS = 4096

    /** How opaque a class is where it is certain, of 255. */
    static final int MOST_OPAQUE = 150

    private static final int WIDTH = 256, HEIGHT = 257, DESCRIPTION = 270
    private static final int TILE_WIDTH = 322, TILE_HEIGHT = 323, OFFSETS = 324, SIZES = 325, LEVELS = 330
    private static final Map BYTES_OF_TYPE = [1: 1, 2: 1, 3: 2, 4: 4, 13: 4, 16: 8, 18: 8]

    final List<String> classes = []

    /** What the heatmap covers, in full-resolution pixels of the slide. */
    final double x, y, width, height

    private final File file
    private final List<Map> pages = []
    private final List<Integer> colors = []

    HeatmapFile(File file) {
        this.file = file
        withInput { input ->
            def header = read(input, 0, 16)
            if (header.getShort(0) != 0x4949 || header.getShort(2) != 43)
                throw new IOException("${file} is not a heatmap that qpannot wrote.")
            long at = header.getLong(8)
            while (at) {
                def page = tagsAt(input, at)
                pages << page
                at = page.next
            }
        }
        byte[] xml = pages[0][DESCRIPTION].findAll { it != 0 } as byte[] // which a zero ends
        def ome = DocumentBuilderFactory.newInstance().newDocumentBuilder().parse(new ByteArrayInputStream(xml))
        def about = new Gson().fromJson(ome.getElementsByTagName('Description').item(0).textContent, Map)
        classes.addAll(about.classes)
        def channels = ome.getElementsByTagName('Channel')
        for (int i = 0; i < classes.size(); i++)
            colors << (channels.item(i).getAttribute('Color').toInteger() >>> 8) // red, green, blue, alpha
        x = about.affine.x
        y = about.affine.y
        width = about.affine.dx * pages[0][WIDTH][0]
        height = about.affine.dy * pages[0][HEIGHT][0]
    }

    /** How many of a slide's pixels one pixel of `image` covers, sideways. */
    double downsample() {
        return width / level(0)[WIDTH][0]
    }

    /** The probability of a class as an image in the class's colour, clearer where it is likelier. */
    BufferedImage image(String className) {
        int index = classes.indexOf(className)
        def tags = level(index)
        int columns = tags[WIDTH][0], rows = tags[HEIGHT][0]
        int tileColumns = tags[TILE_WIDTH][0], tileRows = tags[TILE_HEIGHT][0]
        int across = (columns + tileColumns - 1).intdiv(tileColumns)
        def image = new BufferedImage(columns, rows, BufferedImage.TYPE_BYTE_INDEXED, palette(colors[index]))
        byte[] pixels = ((DataBufferByte) image.raster.dataBuffer).data
        withInput { input ->
            tags[OFFSETS].eachWithIndex { offset, number ->
                int left = (number % across) * tileColumns, top = number.intdiv(across) * tileRows
                byte[] tile = inflated(read(input, offset, tags[SIZES][number] as int).array())
                int shown = Math.min(tileColumns, columns - left)
                for (int row = 0; row < Math.min(tileRows, rows - top); row++)
                    System.arraycopy(tile, row * tileColumns, pixels, (top + row) * columns + left, shown)
            }
        }
        return image
    }

    /** The largest level of a class's page that is small enough to be held and painted whole. */
    private Map level(int index) {
        def levels = [pages[index]]
        withInput { input -> pages[index][LEVELS].each { levels << tagsAt(input, it) } }
        return levels.find { Math.max(it[WIDTH][0], it[HEIGHT][0]) <= MOST_PIXELS } ?: levels.last()
    }

    private static IndexColorModel palette(int rgb) {
        int[] argb = new int[256] // the first: nothing was predicted, transparent
        for (int code = 1; code < 256; code++)
            argb[code] = (Math.round(MOST_OPAQUE * (code - 1) / 254) as int) << 24 | (rgb & 0xffffff)
        return new IndexColorModel(8, 256, argb, 0, true, -1, DataBuffer.TYPE_BYTE)
    }

    private static byte[] inflated(byte[] data) {
        return new InflaterInputStream(new ByteArrayInputStream(data)).bytes
    }

    /** The tags of a TIFF directory that are read here: their values by number; and where the next is. */
    private static Map tagsAt(RandomAccessFile input, long at) {
        int count = read(input, at, 8).getLong(0) as int
        def entries = read(input, at + 8, count * 20 + 8)
        def tags = [:].withDefault { [] }
        for (int i = 0; i < count; i++) {
            int start = i * 20
            int size = BYTES_OF_TYPE[entries.getShort(start + 2) as int] ?: 0
            int number = entries.getLong(start + 4) as int
            if (!size)
                continue
            def values = number * size <= 8 ?
                ByteBuffer.wrap(entries.array(), start + 12, 8).slice().order(ByteOrder.LITTLE_ENDIAN) :
                read(input, entries.getLong(start + 12), number * size)
            tags[entries.getShort(start) & 0xffff] = (0..<number).collect { value(values, it * size, size) }
        }
        tags.next = entries.getLong(count * 20)
        return tags
    }

    private static long value(ByteBuffer data, int at, int size) {
        switch (size) {
            case 1: return data.get(at) & 0xff
            case 2: return data.getShort(at) & 0xffff
            case 4: return data.getInt(at) & 0xffffffffL
            default: return data.getLong(at)
        }
    }

    private static ByteBuffer read(RandomAccessFile input, long at, int size) {
        byte[] data = new byte[size]
        input.seek(at)
        input.readFully(data)
        return ByteBuffer.wrap(data).order(ByteOrder.LITTLE_ENDIAN)
    }

    private withInput(Closure action) {
        return new RandomAccessFile(file, 'r').withCloseable(action)
    }
}
